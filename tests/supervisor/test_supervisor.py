from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.supervisor.conftest import python, until
from webapp.supervisor.folder import CannotStart, processes_file
from webapp.supervisor.supervisor import Interrupted, Supervisor

FOREVER = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(home: Path, said: list[str]) -> Supervisor:
    return Supervisor(said.append)


def test_each_child_is_told_of_once_when_it_is_ready(supervisor: Supervisor, said: list[str]) -> None:
    children = [supervisor.start(python(name, FOREVER, note="here")) for name in ("web", "worker")]
    supervisor.wait_until_ready(children, 20)
    supervisor.stop()
    ready = [line.split() for line in said if " ready in " in line]
    assert [(words[0], words[-1]) for words in ready] == [("web", "here"), ("worker", "here")]


def test_one_that_cannot_start_is_named_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    child = supervisor.start(python("web", "raise SystemExit('the port is taken')", is_ready=lambda: False))
    with pytest.raises(CannotStart, match=r"(?s)web does not start:.*the port is taken.*web\.log"):
        supervisor.wait_until_ready([child], 20)
    supervisor.stop()


def test_one_that_is_never_ready_is_named(supervisor: Supervisor) -> None:
    child = supervisor.start(python("web", FOREVER, is_ready=lambda: False))
    with pytest.raises(CannotStart, match="web is not ready after 0 s"):
        supervisor.wait_until_ready([child], 0)
    supervisor.stop()


def test_a_killed_child_is_shown_and_replaced(supervisor: Supervisor, said: list[str]) -> None:
    child = supervisor.start(python("web", FOREVER))
    supervisor.wait_until_ready([child], 20)
    killed = child.pid
    os.kill(killed, signal.SIGKILL)

    def replaced() -> bool:
        supervisor.tick()
        return child.pid != killed

    until(replaced)
    supervisor.stop()
    assert any("killed by SIGKILL" in line for line in said)


def test_the_servers_stop_after_those_that_use_them(supervisor: Supervisor) -> None:
    order: list[str] = []
    children = [supervisor.start(python(name, FOREVER)) for name in ("postgres", "web")]
    for child in children:
        stop = child.stop
        child.stop = lambda stop=stop, name=child.spec.name: (order.append(name), stop())[1]  # type: ignore[misc]
    supervisor.stop()
    assert order == ["web", "postgres"]
    assert not any(child.is_alive for child in children)


def test_a_second_request_to_stop_does_not_wait_for_the_stubborn(supervisor: Supervisor, said: list[str]) -> None:
    child = supervisor.start(python("web", STUBBORN))
    until(child.last_lines)
    supervisor.asked_to_stop = 2
    supervisor.stop()
    assert not child.is_alive
    assert any("was killed" in line for line in said)


def test_asking_to_stop_ends_the_watch(supervisor: Supervisor) -> None:
    supervisor.asked_to_stop = 1
    with pytest.raises(Interrupted):
        supervisor.tick()


def test_the_children_are_written_down_while_they_run(supervisor: Supervisor) -> None:
    child = supervisor.start(python("web", FOREVER))
    supervisor.wait_until_ready([child], 20)
    written = json.loads(processes_file().read_text())
    assert written["web"]["pid"] == child.pid
    assert written["web"]["state"] == "ready"
    supervisor.stop()
    assert not processes_file().exists()


def test_a_full_disk_does_not_end_what_runs(supervisor: Supervisor, said: list[str], home: Path) -> None:
    child = supervisor.start(python("web", FOREVER))
    processes_file().unlink()
    (home / "run" / "processes.json").mkdir()  # now it cannot be written
    supervisor.remember()
    assert child.is_alive
    assert any("cannot be written" in line for line in said)
    (home / "run" / "processes.json").rmdir()
    supervisor.stop()


def test_addresses_are_shown_without_their_passwords(supervisor: Supervisor, said: list[str]) -> None:
    supervisor.say_outside("postgres", "postgres://ada:secret@db.example:5432/tutelage")
    assert said == ["  postgres        outside           postgres://db.example:5432/tutelage"]
