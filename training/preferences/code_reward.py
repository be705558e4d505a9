"""Runs programs that a model wrote against unit tests: each reply in a process of its own, with limits.

What holds the program (sandboxed_program.py): limits on CPU time, memory, file sizes and open files; an empty
environment; a wall-clock limit; no processes of its own (seccomp); and, by Linux namespaces (unshare), no network, no
other processes in sight, and no file that it could change outside its scratch folder, which is in memory. What does
not: it can read what the training worker's account can read, and the kernel is the same. A reward server (`url`) in a
container or virtual machine holds more.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from training.contract import InputError
from training.contract.rewards import CodeReward
from training.preferences.reward_functions import RewardBatch
from training.preferences.verifiers import fenced_code

ALLOWED: Final = "TUTELAGE_CODE_REWARDS"
UNISOLATED: Final = "unisolated"
PROGRAM: Final = Path(__file__).with_name("sandboxed_program.py")
UNSHARE: Final = (
    "unshare", "--user", "--map-root-user", "--net", "--ipc", "--mount", "--pid", "--fork", "--kill-child",
)  # fmt: skip
MAX_TESTS: Final = 1000
MAX_OUTPUT: Final = 1 << 16  # bytes
START_SECONDS: Final = 5.0  # for the interpreter to start on a busy machine


class CodeTests:
    """Scores replies by the tests in their prompts' data."""

    def __init__(self, term: CodeReward, environment: Mapping[str, str] = os.environ) -> None:
        self.term = term
        allowed = environment.get(ALLOWED, "")
        if allowed not in ("1", UNISOLATED):
            raise InputError(
                "rewards.code: running what a model wrote is off on this machine. Whoever runs the training worker can "
                f"switch it on: {ALLOWED}=1",
                code="config_invalid",
            )
        self.isolation = UNSHARE if can_isolate() else ()
        if not self.isolation and allowed != UNISOLATED:
            raise InputError(
                "rewards.code: this machine has no user namespaces, so a program could reach the network and change "
                f"files. Allow them, or accept this with {ALLOWED}={UNISOLATED}",
                code="config_invalid",
            )

    def score(self, batch: RewardBatch) -> list[float | None]:
        """The share of each reply's tests that pass, or 1 if all do and else 0; None where there are no tests."""
        with ThreadPoolExecutor(max_workers=max(1, min(8, (os.cpu_count() or 2) // 2))) as pool:
            return list(pool.map(self.score_reply, batch.replies, batch.data))

    def score_reply(self, reply: str, data: Mapping[str, Any]) -> float | None:
        tests = tests_of(data)
        if not tests:
            return None
        term = self.term
        passed = passed_tests(fenced_code(reply), tests, term.seconds, term.memory, self.isolation)
        return passed / len(tests) if self.term.score == "share" else float(passed == len(tests))


def passed_tests(code: str, tests: list[Any], seconds: float, memory: int, isolation: Sequence[str]) -> int:
    """How many of the tests the program passes; 0 if it breaks a limit."""
    nonce = secrets.token_hex(16)
    request = {
        "code": code, "tests": tests, "nonce": nonce, "seconds": seconds, "memory": memory,
        "isolated": bool(isolation),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="code-reward-", ignore_cleanup_errors=True) as scratch:
        process = subprocess.Popen(
            [*isolation, sys.executable, "-I", "-S", str(PROGRAM)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=scratch,
            env={"PATH": "/usr/bin:/bin", "HOME": scratch, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
        )  # fmt: skip
        output = b""
        with suppress(subprocess.TimeoutExpired, BrokenPipeError):
            output, _ = process.communicate(json.dumps(request).encode(), timeout=seconds + START_SECONDS)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
    for line in output[-MAX_OUTPUT:].decode(errors="replace").splitlines():
        if line.startswith(nonce):
            return min(int(line.removeprefix(nonce)), len(tests))
    return 0


def tests_of(data: Mapping[str, Any]) -> list[Any]:
    """The tests of a row: Python text, a list of such, or a list of {"input": …, "output": …} for standard input and
    output. Raises InputError if they are anything else."""
    tests = data.get("tests")
    tests = [tests] if isinstance(tests, str) else tests or []
    if not isinstance(tests, list) or len(tests) > MAX_TESTS or not all(map(is_test, tests)):
        raise InputError(
            'data.tests: give Python text, a list of texts, or a list of {"input": "…", "output": "…"}, at most '
            f"{MAX_TESTS}",
            code="data_invalid",
        )
    return [test for test in tests if test]


def is_test(test: Any) -> bool:
    return isinstance(test, str) or (
        isinstance(test, dict) and {"input", "output"} == test.keys() and all(isinstance(t, str) for t in test.values())
    )


@functools.cache
def can_isolate() -> bool:
    """Whether this machine holds a program as UNSHARE and sandboxed_program.py ask for: an empty one runs, and passes
    an empty test."""
    try:
        return passed_tests("pass", ["pass"], seconds=30, memory=512, isolation=UNSHARE) == 1
    except OSError:
        return False
