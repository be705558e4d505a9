"""The process in which a reward is computed: `python -m training.preferences.reward_worker`, started by
reward_process.py.

It reads lines of JSON: first the term and the modules that register functions, then one batch a line; and answers each
with a line, {"scores": […]} or {"error": "…"}. What a function prints goes to the log of the run.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any

from pydantic import TypeAdapter

from training.contract import TrainingError, Turn
from training.contract.rewards import CodeReward, FunctionReward, RewardTerm, RewardTermBase, URLReward
from training.preferences.reward_functions import RewardBatch, call_reward_function, find_reward_function
from training.preferences.verifiers import VERIFIERS

PR_SET_PDEATHSIG = 1
Score = Callable[[RewardBatch], list[float | None]]


def main() -> None:
    answers = keep_stdout()
    end_with_parent()
    lines = iter(sys.stdin.buffer.readline, b"")
    score: Score | None = None
    for answer in answered(lines, score):
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def answered(lines: Iterator[bytes], score: Score | None) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            request = json.loads(line)
            if score is None:
                score = scoring(TypeAdapter(RewardTerm).validate_python(request["term"]), request["modules"])
                yield {"ready": True}
            else:
                yield {"scores": score(read_batch(request))}
        except TrainingError as error:
            yield {"error": error.message, "code": error.code}
        except Exception as error:  # noqa: BLE001 - whatever somebody's function raises
            traceback.print_exc()
            yield {"error": describe_error(error)}


def keep_stdout() -> IO[bytes]:
    """The stream for answers; from here on what is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def end_with_parent() -> None:
    """Die when the run does, even if a function hangs then (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def scoring(term: RewardTermBase, modules: list[str]) -> Score:
    """What scores batches by the term. Raises InputError if it cannot be used."""
    if isinstance(term, FunctionReward):
        for module in modules:
            importlib.import_module(module)
        find_reward_function(term.name)
        name, parameters = term.name, term.parameters
        return lambda batch: call_reward_function(name, batch, parameters)
    if isinstance(term, URLReward):
        from training.preferences.reward_server import RewardServer  # noqa: PLC0415 - the others do without HTTP

        return RewardServer(term).score
    if isinstance(term, CodeReward):
        from training.preferences.code_reward import CodeTests  # noqa: PLC0415

        return CodeTests(term).score
    verify = VERIFIERS[type(term)]
    return lambda batch: list(verify(term, batch))


def read_batch(request: dict[str, Any]) -> RewardBatch:
    prompts = [[Turn(**turn) for turn in prompt] for prompt in request["prompts"]]
    return RewardBatch(prompts, request["replies"], request["references"], request["data"])


def describe_error(error: Exception) -> str:
    """Type, text and place of what a function raised."""
    frames = traceback.extract_tb(error.__traceback__)
    location = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{location}"


if __name__ == "__main__":
    main()
