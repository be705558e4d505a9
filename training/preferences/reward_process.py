"""Computes a reward in a process of its own, with a time limit per batch: a function that hangs, dies or raises ends
with a sentence, not with the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from training.contract import InputError
from training.contract.rewards import FunctionReward, RewardTermBase
from training.preferences.reward_functions import RewardBatch, find_reward_function

START_SECONDS: Final = 180.0  # to import what a function needs
WORKER: Final = "training.preferences.reward_worker"


class RewardFailed(Exception):
    """A reward gave no scores; the text says why, without a full stop."""


class RewardProcess:
    """Scores batches by a term. The process starts with the first batch, or with `start`, and again after it failed."""

    def __init__(self, term: RewardTermBase) -> None:
        self.term = term
        self.modules = modules_of(term)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process. Raises InputError if the term cannot be used, and RewardFailed if it does not start."""
        if self._process is not None and self._process.poll() is None:
            return
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True,
        )  # fmt: skip
        weakref.finalize(self, end_process, self._process)
        self._ask({"term": self.term.model_dump(mode="json"), "modules": self.modules}, START_SECONDS)

    def score(self, batch: RewardBatch) -> list[float | None]:
        """A score for each reply, None where the reward has nothing to say. Raises RewardFailed, or InputError if the
        rows do not fit the term."""
        self.start()
        prompts = [[turn.model_dump() for turn in prompt] for prompt in batch.prompts]
        request = {
            "prompts": prompts, "replies": list(batch.replies), "references": list(batch.references),
            "data": list(batch.data),
        }  # fmt: skip
        scores: list[float | None] = self._ask(request, self.term.timeout)["scores"]
        return scores

    def close(self) -> None:
        if self._process is not None:
            end_process(self._process)

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RewardFailed("its process has not been started")
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            kill_group(process)

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        line = b""
        with suppress(OSError):  # it has died: what is read below is empty
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        timer.cancel()
        if not line.endswith(b"\n"):
            end_process(process)
            self._process = None
            raise RewardFailed(
                f"it gave no answer within {seconds:g} seconds" if expired.is_set() else ending(process.returncode)
            )
        answer: dict[str, Any] = json.loads(line)
        if "code" in answer:
            raise InputError(answer["error"], code=answer["code"])
        if "error" in answer:
            raise RewardFailed(answer["error"])
        return answer


def modules_of(term: RewardTermBase) -> list[str]:
    """The module that registers the term's function. Raises InputError if it is not registered."""
    if not isinstance(term, FunctionReward):
        return []
    module = find_reward_function(term.name).__module__
    return [] if module == "__main__" else [module]


def ending(status: int) -> str:
    if status < 0:
        with suppress(ValueError):
            return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}"


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end_process(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        kill_group(process)
    process.wait()
    streams: Sequence[Any] = (process.stdin, process.stdout)
    for stream in filter(None, streams):
        with suppress(OSError):
            stream.close()
