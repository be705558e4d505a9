from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.supervisor.conftest import python, until
from webapp.supervisor.child import LOG_BYTES, Spec, State, SupervisedProcess, rotate

FOREVER = "import time; time.sleep(600)"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def started(spec: Spec, folder: Path, clock: Clock) -> SupervisedProcess:
    child = SupervisedProcess(spec, folder / f"{spec.name}.log", clock)
    child.start()
    return child


def death(child: SupervisedProcess) -> str:
    """What the child says when it is found dead."""
    until(lambda: not child.is_alive)
    return child.watch()


def start_again(child: SupervisedProcess) -> None:
    """Watch until it runs: the group of the dead process may take a moment to go."""

    def runs() -> bool:
        child.watch()
        return child.state != State.WAITING

    until(runs)


def test_a_child_is_ready_when_its_check_says_so(tmp_path: Path, clock: Clock) -> None:
    answers = iter([False, True])
    child = started(python("web", FOREVER, is_ready=lambda: next(answers)), tmp_path, clock)
    assert child.watch() == ""
    clock.now += 2
    assert child.watch() == "ready in 2.0 s"
    assert child.state == State.READY
    child.kill_group()


def test_a_killed_child_starts_again_at_once(tmp_path: Path, clock: Clock) -> None:
    child = started(python("web", FOREVER), tmp_path, clock)
    first = child.pid
    os.kill(first, signal.SIGKILL)
    assert death(child) == "killed by SIGKILL; starts again at once"
    child.watch()
    assert child.is_alive
    assert child.pid != first
    child.kill_group()


def test_one_that_dies_again_and_again_waits_longer_each_time(tmp_path: Path, clock: Clock) -> None:
    child = started(python("web", "raise SystemExit(3)"), tmp_path, clock)
    said = []
    for _ in range(8):
        said.append(death(child).removeprefix("ended with status 3; starts again "))
        clock.now += 60
        start_again(child)
    child.kill_group()
    assert said == ["at once", "in 1 s", "in 2 s", "in 4 s", "in 8 s", "in 16 s", "in 30 s", "in 30 s"]


def test_it_does_not_start_before_its_time(tmp_path: Path, clock: Clock) -> None:
    child = started(python("web", "raise SystemExit(3)", is_ready=lambda: False), tmp_path, clock)
    death(child)
    child.watch()
    assert death(child).endswith("in 1 s")
    clock.now += 0.9
    child.watch()
    assert child.state == State.WAITING
    clock.now += 0.2
    child.watch()
    assert child.state == State.STARTING  # type: ignore[comparison-overlap]
    child.kill_group()


def test_a_steady_child_is_forgiven_its_deaths(tmp_path: Path, clock: Clock) -> None:
    child = started(python("web", FOREVER), tmp_path, clock)
    child.kill_group()
    death(child)
    child.watch()
    child.watch()
    clock.now += 60
    child.watch()
    assert child.deaths == 0
    child.kill_group()


def test_stopping_reaches_what_the_child_started(tmp_path: Path, clock: Clock) -> None:
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {FOREVER!r}])"
    child = started(python("worker", program), tmp_path, clock)
    until(lambda: psutil.Process(child.pid).children())
    grandchild = psutil.Process(child.pid).children()[0]
    child.stop()
    until(lambda: not child.is_alive)
    until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)
    assert child.watch() == ""


def test_the_end_of_the_log_can_be_shown(tmp_path: Path, clock: Clock) -> None:
    child = started(python("web", "for n in range(30): print('line', n)"), tmp_path, clock)
    death(child)
    assert child.last_lines(2) == ["line 28", "line 29"]


def test_a_long_log_moves_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with log.open("ab") as writer:
        for text in (b"first ", b"second ", b"third ", b"fourth ", b"fifth "):
            writer.write(text)
            writer.flush()
            rotate(log, limit=3, keep=3)
        writer.write(b"now")
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept == {"web.log": b"now", "web.log.1": b"fifth ", "web.log.2": b"fourth ", "web.log.3": b"third "}


def test_a_short_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("short")
    rotate(log, limit=LOG_BYTES)
    assert [path.name for path in tmp_path.iterdir()] == ["web.log"]
