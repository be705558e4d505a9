from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from webapp import home_folder
from webapp.supervisor.folder import processes_file, write_json
from webapp.supervisor.leftovers import MARK, end_leftovers

FOREVER = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(FOREVER, start_new_session=True)
    yield started
    started.kill()
    started.wait()


def write_down(pid: int, started: float, of: Path | None = None) -> None:
    child = {"pid": pid, "started": started, "state": "ready", "home": str(of or home_folder.data_home())}
    write_json(processes_file(), {"worker": child})


def test_a_child_of_a_killed_supervisor_is_ended(home: Path, process: subprocess.Popen[bytes]) -> None:
    write_down(process.pid, psutil.Process(process.pid).create_time())
    assert end_leftovers() == [str(process.pid)]
    assert process.wait(10) is not None
    assert not processes_file().exists()


def test_a_copy_of_a_running_site_s_folder_leaves_the_site_alone(home: Path, process: subprocess.Popen[bytes]) -> None:
    write_down(process.pid, psutil.Process(process.pid).create_time(), of=home.with_name("original"))
    assert end_leftovers() == []
    assert process.poll() is None


def test_one_that_has_its_number_by_chance_is_spared(home: Path, process: subprocess.Popen[bytes]) -> None:
    write_down(process.pid, psutil.Process(process.pid).create_time() - 1000)
    assert end_leftovers() == []
    assert process.poll() is None


def test_what_a_dead_child_had_started_is_found_by_its_session(home: Path) -> None:
    program = f"import subprocess; print(subprocess.Popen({FOREVER!r}, stdout=2).pid, flush=True)"
    leader = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    started = psutil.Process(leader.pid).create_time()
    left = int(leader.communicate()[0])
    write_down(leader.pid, started)
    assert end_leftovers() == [str(left)]


def test_what_left_its_session_is_found_by_the_mark_of_the_home(home: Path) -> None:
    marked = subprocess.Popen(FOREVER, env={**os.environ, MARK: str(home)}, start_new_session=True)
    other = subprocess.Popen(FOREVER, env={**os.environ, MARK: "/another/home"}, start_new_session=True)
    write_down(2**22 + 1, 0.0)
    try:
        assert end_leftovers() == [str(marked.pid)]
        assert other.poll() is None
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()


def test_after_a_clean_end_nothing_is_looked_for(home: Path) -> None:
    assert end_leftovers() == []
