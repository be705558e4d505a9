from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervisor.conftest import until
from webapp.home_folder import endpoints_file, read_endpoints, service_url
from webapp.supervisor import folder
from webapp.supervisor.folder import AlreadyRunning, CannotStart, hold_lock, is_locked, prepare_home

HOLDER = """
import time
from webapp.supervisor.folder import hold_lock
with hold_lock():
    print("held", flush=True)
    time.sleep(600)
"""

WRITER = """
from webapp.supervisor.folder import write_endpoints
while True:
    write_endpoints({"SITE_URL": "b" * 100_000})
"""


def test_a_second_supervisor_of_a_home_is_refused_and_told_of_the_first(home: Path) -> None:
    with (
        hold_lock(),
        pytest.raises(AlreadyRunning, match=rf"(?s){home}.*process {os.getpid()}.*TUTELAGE_HOME"),
        hold_lock(),
    ):
        pass


def test_a_killed_supervisor_leaves_no_lock(home: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_locked()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with hold_lock():
        assert (home / "run" / "lock").read_text() == str(os.getpid())


def test_looking_whether_it_is_locked_never_keeps_a_supervisor_out(home: Path) -> None:
    looks = 0

    def looking(descriptor: int, operation: int) -> None:
        nonlocal looks
        looks += 1
        if looks < 4:
            raise BlockingIOError
        fcntl.flock(descriptor, operation)

    with (home / "run" / "lock").open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", looking)
        patch.undo()
        assert folder.locked_at_last(file.fileno())


def test_an_unlocked_home_is_known_as_such(home: Path) -> None:
    assert not is_locked()
    with hold_lock():
        assert is_locked()
    assert not is_locked()


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(CannotStart, match="file/home cannot be used: Not a directory"):
        prepare_home()


def test_others_cannot_enter_a_home_that_nobody_else_needs(home: Path) -> None:
    prepare_home()
    assert home.stat().st_mode & 0o077 == 0


def test_endpoints_are_for_the_owner_alone(home: Path) -> None:
    folder.write_endpoints({"SITE_URL": "http://127.0.0.1:8000"})
    assert read_endpoints() == {"SITE_URL": "http://127.0.0.1:8000"}
    assert endpoints_file().stat().st_mode & 0o077 == 0


def test_a_copied_home_does_not_speak_with_the_servers_of_its_original(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_endpoints({"DATABASE_URL": "postgres://the-original"})
    copy = home.with_name("copy")
    shutil.copytree(home, copy)
    monkeypatch.setenv("TUTELAGE_HOME", str(copy))
    assert service_url("DATABASE_URL", "none") == "none"
    monkeypatch.setenv("TUTELAGE_HOME", str(home))
    assert service_url("DATABASE_URL") == "postgres://the-original"


def test_endpoints_are_never_seen_half_written(home: Path) -> None:
    folder.write_endpoints({"SITE_URL": "a"})
    program = (
        "from webapp.supervisor.folder import write_endpoints\nwhile True: write_endpoints({'SITE_URL': 'b' * 100_000})"
    )
    writer = subprocess.Popen([sys.executable, "-c", program])
    until(lambda: endpoints_file().stat().st_size > 1000)
    for _ in range(300):
        json.loads(endpoints_file().read_text())
    writer.kill()
    writer.wait()


def test_sockets_lie_in_the_home_unless_its_path_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", "/srv/t")
    assert folder.sockets_folder() == Path("/srv/t/run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TUTELAGE_HOME", "/srv/" + "long/" * 30)
    short = folder.sockets_folder()
    assert short.parent == tmp_path
    assert folder.sockets_folder() == short
    monkeypatch.setenv("TUTELAGE_HOME", "/srv/" + "lang/" * 30)
    assert folder.sockets_folder() != short


def test_a_folder_for_sockets_that_somebody_else_put_there_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TUTELAGE_HOME", "/srv/" + "long/" * 30)
    ours = folder.sockets_folder()
    ours.rmdir()
    ours.symlink_to("/")
    with pytest.raises(CannotStart, match="belongs to someone else"):
        folder.sockets_folder()
