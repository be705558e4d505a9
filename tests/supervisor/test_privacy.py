"""What is in the data folder is its owner's alone, also as root, where PostgreSQL runs as another user."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage

from tests.supervisor.conftest import until
from webapp.supervisor import postgres
from webapp.supervisor.child import Spec, SupervisedProcess
from webapp.supervisor.folder import prepare_home

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")
# What of the files and folders named by its arguments a user can read, list or enter.
SPY = """
import json, os, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
seen = []
for path in json.load(sys.stdin):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).close()
        seen.append(path)
    except OSError:
        pass
print(json.dumps(seen))
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may enter, as /srv is; pytest's own are not."""
    place = Path(tempfile.mkdtemp(prefix="tutelage-open-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def home(home: Path, open_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_HOME", str(open_place / "home"))
    return open_place / "home"


def everything(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


def seen_by(user: int, paths: list[Path]) -> list[str]:
    command = [sys.executable, "-I", "-S", "-c", SPY, str(user)]
    answer = subprocess.run(
        command, input=json.dumps([str(p) for p in paths]), capture_output=True, text=True, check=True
    )
    return list(json.loads(answer.stdout))


def of_an_earlier_version(home: Path) -> None:
    for name in ("logs", "runs/1/data", "artefacts/models/a", "uploads/imports", "serve"):
        (home / name).mkdir(parents=True)
    for name in ("logs/web-1.log", "runs/1/data/rows.jsonl", "artefacts/models/a/config.json", "uploads/imports/a.csv"):
        (home / name).write_text("a reset link")
        (home / name).chmod(0o644)
    for path in everything(home):
        if path.is_dir():
            path.chmod(0o755)


@pytest.fixture
def server(home: Path) -> Iterator[SupervisedProcess]:
    of_an_earlier_version(home)
    prepare_home()
    postgres.make_cluster()
    child = SupervisedProcess(postgres.postgres_spec(), home / "logs" / "postgres.log")
    child.start()

    def ready() -> bool:
        assert "ended" not in child.watch(), child.last_lines()
        return child.state == "ready"

    until(ready)
    yield child
    child.stop()
    until(lambda: not child.is_alive)


def test_an_earlier_version_s_folder_becomes_private_at_the_next_start(home: Path) -> None:
    of_an_earlier_version(home)
    prepare_home()
    assert [path for path in everything(home) if path.stat().st_mode & 0o077] == []
    assert (home / "logs" / "web-1.log").read_text() == "a reset link"


def test_a_link_out_of_the_data_folder_is_left_alone(home: Path, open_place: Path) -> None:
    (open_place / "disk").mkdir()
    (open_place / "disk").chmod(0o755)
    home.mkdir()
    (home / "artefacts").symlink_to(open_place / "disk")
    prepare_home()
    assert stat.S_IMODE((open_place / "disk").stat().st_mode) == 0o755


def test_what_a_child_of_the_supervisor_writes_is_private(home: Path) -> None:
    prepare_home()
    program = "import pathlib; pathlib.Path('made').mkdir(); pathlib.Path('made/file').touch()"
    child = SupervisedProcess(
        Spec("writer", [sys.executable, "-c", program], {}, folder=home), home / "logs" / "writer.log"
    )
    child.start()
    until(lambda: not child.is_alive)
    assert (home / "made" / "file").exists(), child.last_lines()
    assert [path for path in everything(home) if path.stat().st_mode & 0o077] == []


def test_uploaded_files_are_private(tmp_path: Path) -> None:
    options = cast("dict[str, Any]", settings.STORAGES["default"]["OPTIONS"]) | {"location": tmp_path / "uploads"}
    FileSystemStorage(**options).save("imports/rows.csv", ContentFile(b"prompt,reply"))
    assert [path for path in everything(tmp_path / "uploads") if path.stat().st_mode & 0o077] == []


@AS_ROOT
def test_as_root_nobody_else_reads_a_thing_while_the_database_runs(home: Path, server: SupervisedProcess) -> None:
    paths = everything(home)
    assert len(paths) > 100, "the database's files are among them"
    assert seen_by(NOBODY, paths) == []
    assert seen_by(NOBODY, [home.parent]) == [str(home.parent)], "it looks with eyes that see"


@AS_ROOT
def test_as_root_the_folders_above_the_data_folder_stay_closed(
    open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the database's user passes them: it is started in its folder, and never leaves it."""
    closed = open_place / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("TUTELAGE_HOME", str(closed / "home"))
    prepare_home()
    postgres.make_cluster()
    child = SupervisedProcess(postgres.postgres_spec(), closed / "home" / "logs" / "postgres.log")
    child.start()
    until(lambda: child.watch() or child.state == "ready")
    postgres.make_database()
    with postgres.connect(postgres.NAME) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    child.stop()
    until(lambda: not child.is_alive)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert stat.S_IMODE((closed / "home").stat().st_mode) == 0o700


@AS_ROOT
def test_programs_in_a_folder_of_root_are_copied_for_the_database_s_user(
    open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = open_place / "closed" / "site-packages"
    closed.mkdir(parents=True)
    for name in (postgres.PACKAGE, f"{postgres.PACKAGE}.libs"):
        shutil.copytree(postgres.binaries().parents[2] / name, closed / name, symlinks=True)
    closed.parent.chmod(0o700)
    monkeypatch.setattr(postgres, "COPIES", open_place / "copies")
    monkeypatch.setattr(postgres, "binaries", lambda: closed / postgres.PACKAGE / "pginstall18" / "bin")
    postgres.make_user(postgres.ROOT_USER)
    copy = postgres.server_binaries()
    assert copy.is_relative_to(open_place / "copies")
    assert postgres.runs_for_its_user(copy)
    assert postgres.server_binaries() == copy
    assert stat.S_IMODE(closed.parent.stat().st_mode) == 0o700
