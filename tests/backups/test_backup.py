"""A backup holds the database of one moment and every file it names, and comes back whole somewhere else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import LazySettings
from django.db import connection
from psycopg import sql

from tests import factories
from webapp.accounts.models import Project, User
from webapp.backups import backup
from webapp.backups.backup import WrittenBackup, check_backup, make_backup
from webapp.backups.manifest import DUMP, FILES, MANIFEST, Manifest, backups_in
from webapp.backups.restore import restore_backup
from webapp.errors import BadInput, Conflict
from webapp.home_folder import ROOT
from webapp.registry.models import ModelVersion
from webapp.registry.services import register_model
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)
MOMENT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.fixture
def home(settings: LazySettings, tmp_path: Path, project: Project) -> Path:
    """A data folder with a model, a run folder, an upload and a secret key, and rows that name them."""
    home = settings.HOME = tmp_path / "home"
    settings.ARTEFACTS_URL, settings.RUNS_FOLDER = f"file://{home}/artefacts", home / "runs"
    for name in (
        "uploads/imports/rows.csv",
        "runs/1/events.jsonl",
        "secret_key",
        "logs/web-1.log",
        "postgres/PG_VERSION",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    made = tmp_path / "made"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"weights" * 1000)
    by = project.created_by
    register_model(project=project, name="m", kind="full", stage="sft", by=by, folder=made)
    return home


def back_up(home: Path, number: int = 0, **options: int) -> WrittenBackup:
    now = MOMENT + timedelta(hours=number)
    destination = home.with_name("backups")
    return make_backup(home=home, destination=destination, now=now, say=print, moved=ignore, **options)


def ignore(size: int) -> None:
    pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of an empty database on the same server."""
    address = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    with psycopg.connect(address, autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS restored_elsewhere")
        server.execute("CREATE DATABASE restored_elsewhere")
        yield urlsplit(address)._replace(path="/restored_elsewhere").geturl()
        server.execute("DROP DATABASE restored_elsewhere WITH (FORCE)")


def command(home: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"TUTELAGE_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_backup_is_whole_private_and_has_what_the_database_names(home: Path, ada: User) -> None:
    made = back_up(home)
    manifest = Manifest.read(made.folder)
    model = ModelVersion.objects.get()
    assert made.folder.name == "2026-05-04T030201Z"
    assert set(manifest.files) == {
        "secret_key", "uploads/imports/rows.csv", "runs/1/events.jsonl",
        f"{model.artefact}/model.safetensors", f"{model.artefact}/sha256sums.txt",
    }  # fmt: skip
    assert manifest.references == [f"{model.artefact}/model.safetensors"]
    assert manifest.rows["accounts_user"] == User.objects.count()
    assert made.missing == []
    assert [path for path in made.folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077] == []
    assert check_backup(made.folder, say=print, moved=ignore)[2] == []


def test_a_backup_comes_back_in_another_place(home: Path, elsewhere: str, tmp_path: Path, ada: User) -> None:
    run = factories.run(ada.memberships.get().project, state=Run.State.RUNNING, claimed_by="h/b/1/2", child="h/b/3/4")
    made = back_up(home)
    place = tmp_path / "place"
    done = command(place, "restore", made.folder.parent, DATABASE_URL=elsewhere)
    assert done.returncode == 0, done.stderr
    restored = [path for path in place.rglob("*") if path.is_file() and "run/" not in str(path)]
    assert {path.relative_to(place).as_posix() for path in restored} == set(made.manifest.files)
    assert all((place / name).read_bytes() == (home / name).read_bytes() for name in made.manifest.files)
    with psycopg.connect(elsewhere) as database:
        for table, count in made.manifest.rows.items():
            assert database.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() == (
                count,
            ), table
        claims = database.execute("SELECT claimed_by, child, state FROM runs_run WHERE id = %s", [run.pk]).fetchone()
    assert claims == ("", "", "running"), "the processes of the original are none of its own"


def test_what_did_not_change_is_linked_to_the_backup_before(home: Path) -> None:
    first = back_up(home)
    weights = next(name for name in first.manifest.files if name.endswith(".safetensors"))
    (home / "runs/1/events.jsonl").write_text("and another event")
    second = back_up(home, 1)
    assert (first.folder / FILES / weights).samefile(second.folder / FILES / weights)
    assert (second.folder / FILES / "runs/1/events.jsonl").read_text() == "and another event"
    assert (first.folder / FILES / "runs/1/events.jsonl").read_text() == "runs/1/events.jsonl"
    assert second.copied < 100 < second.linked
    shutil.rmtree(first.folder)
    assert check_backup(second.folder, say=print, moved=ignore)[2] == [], "each is whole without the others"


def test_where_files_cannot_be_linked_they_are_copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back_up(home)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    second = back_up(home, 1)
    assert second.linked == 0
    assert check_backup(second.folder, say=print, moved=ignore)[2] == []


def test_only_the_newest_are_kept_when_that_is_asked(home: Path) -> None:
    for number in range(4):
        made = back_up(home, number, keep=2)
    assert sorted(path.name for path in made.folder.parent.glob("2*")) == ["2026-05-04T050201Z", "2026-05-04T060201Z"]


@pytest.mark.parametrize("harm", ["changed", "missing", "dump"])
def test_a_damaged_backup_is_found_and_nothing_of_it_is_restored(home: Path, tmp_path: Path, harm: str) -> None:
    made = back_up(home)
    victim = made.folder / (DUMP if harm == "dump" else f"{FILES}/secret_key")
    victim.unlink() if harm == "missing" else victim.write_text("something else")
    checked = command(home, "backup", made.folder, "--check")
    assert checked.returncode == 1
    assert f"{victim} is" in checked.stderr
    assert "is damaged" in checked.stderr
    with pytest.raises(BadInput, match="The backup is damaged"):
        restore(made, tmp_path / "place")
    assert not (tmp_path / "place").exists()


def test_a_backup_of_a_newer_version_is_refused_by_name(home: Path, tmp_path: Path) -> None:
    made = back_up(home)
    content = json.loads((made.folder / MANIFEST).read_text())
    content["migrations"]["accounts"].append("9999_from_the_future")
    (made.folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"made by a newer Tutelage .*9999_from_the_future.* Install that version"):
        restore(made, tmp_path / "place")


def test_data_that_is_there_is_not_overwritten(home: Path, tmp_path: Path) -> None:
    made = back_up(home)
    with pytest.raises(Conflict, match=r"holds data already .*--replace"):
        restore(made, home)
    assert (home / "logs/web-1.log").exists()


def test_a_database_that_has_tables_is_not_overwritten(home: Path, tmp_path: Path) -> None:
    made = back_up(home)
    with pytest.raises(Conflict, match="has tables already"):
        restore(made, tmp_path / "place")


def test_what_is_replaced_is_moved_aside(home: Path, ada: User) -> None:
    made = back_up(home)
    factories.person("Late")
    (home / "secret_key").write_text("another")
    restore(made, home, replace=True)
    assert (home / "secret_key").read_text() == "secret_key"
    (aside,) = home.glob("replaced-*")
    assert (aside / "secret_key").read_text() == "another"
    assert not User.objects.filter(name="Late").exists()
    assert User.objects.filter(pk=ada.pk).exists()


def test_a_restore_cut_short_does_not_pass_for_an_installation(home: Path, tmp_path: Path) -> None:
    made = back_up(home)
    place = tmp_path / "place"

    @contextmanager
    def broken() -> Iterator[None]:
        raise OSError("cut short")
        yield

    with pytest.raises(OSError, match="cut short"):
        restore(made, place, start=broken)
    started = command(place, "up", "--any-port")
    assert started.returncode == 1
    assert "was cut short. Run it again" in started.stderr


def test_a_manifest_cannot_lead_out_of_the_data_folder(home: Path, tmp_path: Path) -> None:
    made = back_up(home)
    content = json.loads((made.folder / MANIFEST).read_text())
    content["files"]["../outside"] = content["files"]["secret_key"]
    (made.folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"names \.\./outside, which is not in the backup"):
        restore(made, tmp_path / "place")


def test_a_killed_backup_leaves_nothing_that_passes_for_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of its files; the next one clears up."""
    (home / "uploads/big").write_bytes(b"x" * 50_000_000)
    script = (
        "import sys, time, django; django.setup()\n"
        "from pathlib import Path; from datetime import datetime, UTC; from django.conf import settings\n"
        "from django.db import connection; from webapp.backups.backup import make_backup\n"
        "connection.settings_dict['NAME'] = sys.argv[1]; home = Path(sys.argv[2]); settings.HOME = home\n"
        "def moved(size): print('moved', flush=True); time.sleep(600)\n"
        "make_backup(home=home, destination=home.with_name('backups'), now=datetime(2026, 1, 1, tzinfo=UTC),"
        " say=str, moved=moved)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, connection.settings_dict["NAME"], str(home)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "webapp.settings"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "moved\n"
    with pytest.raises(Conflict, match="Another backup is being written"):
        back_up(home)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    backups = home.with_name("backups")
    assert backups_in(backups) == []
    assert [path.name for path in backups.iterdir() if path.name != ".lock"] == [".partial-2026-01-01T000000Z"]
    made = back_up(home)
    assert [path for path in backups.iterdir() if path.name != ".lock"] == [made.folder]


def test_a_backup_into_the_data_folder_is_refused(home: Path) -> None:
    with pytest.raises(BadInput, match="is in the data folder itself"):
        make_backup(home=home, destination=home / "backups", now=MOMENT, say=print, moved=ignore)


def test_a_disk_that_is_too_small_is_known_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "free_space_left", lambda _: 5000)
    with pytest.raises(Conflict, match=r"GB free\. Make room, or choose another disk"):
        back_up(home)
    assert backups_in(home.with_name("backups")) == []


def test_files_that_the_database_misses_are_named(home: Path) -> None:
    shutil.rmtree(home / ModelVersion.objects.get().artefact)
    assert back_up(home).missing == [f"{ModelVersion.objects.get().artefact}/model.safetensors"]


def test_a_store_elsewhere_is_named_as_no_part_of_it(home: Path, project: Project) -> None:
    artefact = "s3://bucket/tutelage/models/abc"
    factories.model_version(project, artefact=artefact, files={"model.safetensors": "0" * 64})
    assert back_up(home).manifest.outside == ["s3://bucket/tutelage"]


def restore(made: WrittenBackup, place: Path, *, replace: bool = False, start: Any = None) -> Manifest:
    @contextmanager
    def here() -> Iterator[None]:
        yield

    begin = start or here
    return restore_backup(
        home=place, source=made.folder, replace=replace, now=MOMENT, start=begin, say=print, moved=ignore
    )  # fmt: skip
