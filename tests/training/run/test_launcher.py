"""`python -m training` with the setting `processes`: one command, one exit status, whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.training.distributed.test_several_processes import assert_same, new_run
from tests.training.toys import events, run_here, start_child, toy_policy
from training.contract import EXIT_DONE, EXIT_FAILED, EXIT_INVALID, EXIT_STOPPED
from training.run.launcher import status_of

PATIENCE = 300
CPU_PROCESSES = {"TUTELAGE_CPU_PROCESSES": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_policy(tmp_path_factory.mktemp("models") / "base")


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (folder / "events.jsonl").exists() and any(e["step"] >= step for e in events(folder, "metric")):
            return
        time.sleep(0.1)
    raise AssertionError("it does not come as far")


@pytest.mark.parametrize(
    ("statuses", "launcher", "stopped", "expected"),
    [
        ([0, 0], 0, False, EXIT_DONE),
        ([143, 143], 0, True, EXIT_STOPPED),
        ([], 1, True, EXIT_STOPPED),  # killed before they listened
        ([1, 2], 1, False, EXIT_INVALID),
        ([143, 1], 1, True, EXIT_FAILED),
        ([], 1, False, EXIT_FAILED),
        ([], 0, False, EXIT_FAILED),
        ([0], -9, False, 9),
    ],
)
def test_the_status_is_that_of_one_process(statuses: list[int], launcher: int, stopped: bool, expected: int) -> None:
    assert status_of(statuses, launcher, stopped=stopped) == expected


@pytest.mark.slow
@pytest.mark.fp32
@pytest.mark.parametrize("shard", [False, True], ids=["whole", "sharded"])
def test_stopped_and_resumed_two_processes_give_what_one_does(shard: bool, base: Path, tmp_path: Path) -> None:
    one = new_run(tmp_path / "one", "sft", base, epochs=8, evaluate_every=0)
    run_here(one)
    two = new_run(tmp_path / "two", "sft", base, epochs=8, evaluate_every=0, processes=2, shard=shard)
    child = start_child(two, **CPU_PROCESSES)
    wait_for_step(two, 3)
    child.terminate()
    output, _ = child.communicate(timeout=PATIENCE)
    assert child.returncode == EXIT_STOPPED, output
    assert list(two.glob("checkpoint-*"))
    assert not (two / "result.json").exists()
    again = start_child(two, **CPU_PROCESSES)
    output, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == EXIT_DONE, output
    assert_same(one, two)
    assert "2 processes" in json.loads((two / "result.json").read_text())["device"]


@pytest.mark.slow
def test_when_the_command_is_killed_none_of_its_processes_stays(base: Path, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", "sft", base, epochs=3000, evaluate_every=0, processes=2)
    child = start_child(folder, **CPU_PROCESSES)
    wait_for_step(folder, 3)
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) >= 3  # the launcher and two processes
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=PATIENCE)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    assert not alive


@pytest.mark.parametrize(
    ("settings", "environment", "sentence"),
    [
        ({"processes": 2}, {"TUTELAGE_CPU_PROCESSES": ""}, "processes: this run computes on a CPU"),
        ({"shard": True}, {}, "shard: one process has nothing to share"),
        ({"processes": 0}, {}, "processes: give a whole number from 1 to 64"),
    ],
)
def test_what_cannot_be_computed_together_is_refused_once(
    settings: dict[str, Any], environment: dict[str, str], sentence: str, base: Path, tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", "sft", base, **settings)
    child = start_child(folder, **environment)
    output, _ = child.communicate(timeout=PATIENCE)
    assert child.returncode == EXIT_INVALID, output
    assert [sentence in event["message"] for event in events(folder, "failed")] == [True]
