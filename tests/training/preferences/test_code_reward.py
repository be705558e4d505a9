from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from training.contract import InputError
from training.contract.rewards import CodeReward
from training.preferences.code_reward import ALLOWED, UNISOLATED, CodeTests, can_isolate

TESTS = {"tests": ["assert double(2) == 4", "assert double(0) == 0", "assert double(-1) == -2"]}
RIGHT = "def double(n):\n    return 2 * n\n"
isolated = pytest.mark.skipif(not can_isolate(), reason="this machine has no user namespaces")


def code_tests(allowed: str = UNISOLATED, **settings: Any) -> CodeTests:
    return CodeTests(CodeReward(**({"seconds": 2} | settings)), {ALLOWED: allowed})


def test_a_program_is_right_if_all_its_tests_pass() -> None:
    reward = code_tests()
    assert reward.score_reply(f"Like this:\n```python\n{RIGHT}```\nDone.", TESTS) == 1
    assert reward.score_reply("def double(n): return n * n", TESTS) == 0
    assert reward.score_reply("def double(n) return", TESTS) == 0
    assert reward.score_reply(RIGHT, {}) is None


def test_the_share_of_tests_that_pass_may_count() -> None:
    assert code_tests(score="share").score_reply("def double(n): return n * n", TESTS) == pytest.approx(2 / 3)


def test_programs_that_read_and_print_are_tested_by_their_output() -> None:
    tests = {"tests": [{"input": "3\n", "output": "6\n"}, {"input": "4", "output": "8"}]}
    assert code_tests().score_reply("print(2 * int(input()))", tests) == 1
    assert code_tests(score="share").score_reply("print(6)", tests) == 0.5


def test_tests_of_another_shape_are_refused() -> None:
    for tests in (7, [7], [{"input": "1"}]):
        with pytest.raises(InputError, match=r"data\.tests"):
            code_tests().score_reply(RIGHT, {"tests": tests})


def test_it_is_off_unless_the_operator_allows_it() -> None:
    with pytest.raises(InputError, match=f"{ALLOWED}=1"):
        code_tests("")


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "memory = bytearray(10**10)",
        "import numpy",  # the standard library alone
        "import os\nassert os.environ.get('SECRET_OF_THE_TEST')",
    ],
)
def test_a_program_that_breaks_a_limit_passes_nothing(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_TEST", "1")
    assert code_tests(seconds=1).score_reply(f"{program}\n{RIGHT}", TESTS) == 0


@isolated
@pytest.mark.parametrize(
    "program",
    [
        "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
        "open('{folder}/written', 'w')",
        "import os\nos.remove('{folder}/kept')",
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['true'])",
        "import os\nos.kill({pid}, 0)",
        "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/', None, 32 | 4096, None) == 0",
    ],
)
def test_a_program_reaches_nothing_outside(program: str, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    tmp_path.chmod(0o777)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        named = {"port": server.getsockname()[1], "folder": tmp_path, "pid": os.getpid()}
        assert code_tests("1").score_reply(f"{program.format(**named)}\n{RIGHT}", TESTS) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@isolated
def test_a_program_may_use_threads_and_its_scratch_folder() -> None:
    program = "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()\nopen('x', 'w').write('y')\n"
    assert code_tests("1").score_reply(program + RIGHT, TESTS) == 1
