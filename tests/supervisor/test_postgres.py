"""The embedded PostgreSQL is made, found again after a kill, and rid of what stands in its way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.narrowing import existing
from tests.supervisor.conftest import until
from webapp.supervisor import folder, postgres
from webapp.supervisor.child import SupervisedProcess
from webapp.supervisor.folder import CannotStart


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[], SupervisedProcess]]:
    children = []

    def started() -> SupervisedProcess:
        postgres.make_cluster()
        child = SupervisedProcess(postgres.postgres_spec(), home / "logs" / "postgres.log")
        child.start()
        children.append(child)

        def ready() -> bool:
            assert "ended" not in child.watch(), child.last_lines()
            return child.state == "ready"

        until(ready)
        return child

    yield started
    for child in children:
        child.kill_group()
    for process in postgres.servers_on(postgres.data_folder()):
        process.kill()


def write_row() -> None:
    postgres.make_database()
    with postgres.connect(postgres.NAME) as connection:
        connection.execute("CREATE TABLE label (text text)")
        connection.execute("INSERT INTO label VALUES ('kept')")


def read_row() -> str:
    with postgres.connect(postgres.NAME) as connection:
        row = connection.execute("SELECT text FROM label").fetchone()
        return row[0] if row else ""


def test_what_was_written_is_there_after_a_kill_and_a_process_id_that_went_to_another(
    start: Callable[[], SupervisedProcess],
) -> None:
    first = start()
    write_row()
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not first.is_alive)
    pid_file = postgres.data_folder() / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    somebody = subprocess.Popen(["sleep", "600"])
    pid_file.write_text("\n".join([str(somebody.pid), *lines[1:]]))
    start()
    assert read_row() == "kept"
    assert somebody.poll() is None
    somebody.kill()
    somebody.wait()


def test_a_server_that_a_killed_supervisor_left_makes_way(start: Callable[[], SupervisedProcess]) -> None:
    left = start()
    write_row()
    postgres.clear_the_way()
    assert not left.is_alive
    start()
    assert read_row() == "kept"


def test_the_server_listens_on_a_socket_of_its_owner_and_nowhere_else(start: Callable[[], SupervisedProcess]) -> None:
    server = psutil.Process(start().pid)
    assert not server.net_connections("tcp")
    assert postgres.socket_folder().stat().st_mode & 0o077 == 0
    with postgres.connect("postgres") as connection:
        shown = {
            name: existing(connection.execute(f"SHOW {name}").fetchone())[0]
            for name in ("fsync", "full_page_writes", "synchronous_commit", "server_encoding", "data_checksums")
        }
    assert shown == {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "server_encoding": "UTF8",
        "data_checksums": "on",
    }


def test_a_path_too_long_for_a_socket_does_not_stand_in_the_way(
    home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Long enough for PostgreSQL's, and not for Redis'."""
    long = home / ("a" * (folder.SOCKET_PATH_LIMIT - len(str(home / "run/redis.sock")) - 2))
    monkeypatch.setenv("TUTELAGE_HOME", str(long))
    assert folder.sockets_folder() == long / "run"
    folder.prepare_home()
    start = request.getfixturevalue("start")
    start()
    assert not postgres.socket_folder().is_relative_to(long)
    write_row()
    assert read_row() == "kept"
    shutil.rmtree(postgres.socket_folder().parent)


def test_a_copy_that_changed_owner_and_mode_is_put_right(start: Callable[[], SupervisedProcess]) -> None:
    first = start()
    write_row()
    first.stop()
    until(lambda: not first.is_alive)
    for path in (postgres.data_folder(), *postgres.data_folder().rglob("*")):
        os.chown(path, os.geteuid(), -1)
    postgres.data_folder().chmod(0o755)
    start()
    assert read_row() == "kept"


def test_a_cluster_half_made_is_made_anew(home: Path) -> None:
    half = home / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    postgres.make_cluster()
    assert not half.exists()
    assert (postgres.data_folder() / "global").is_dir()


def test_data_of_another_version_is_named_with_the_way_to_upgrade(home: Path) -> None:
    postgres.data_folder().mkdir()
    (postgres.data_folder() / "PG_VERSION").write_text("16\n")
    with pytest.raises(CannotStart, match=r"made by PostgreSQL 16 and this is 18.*upgrade_db"):
        postgres.make_cluster()
