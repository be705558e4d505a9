"""Putting a backup back: checked first, then the database, then the files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path

from webapp.backups import database
from webapp.backups.backup import check_backup
from webapp.backups.files import Progress, copy, inside
from webapp.backups.manifest import DUMP, FILES, Manifest
from webapp.errors import BadInput, Conflict
from webapp.supervisor.folder import UNFINISHED, free_space_left

Say = Callable[[str], None]
Start = Callable[[], AbstractContextManager[None]]
NOT_DATA = {"run", "logs", "serve", "static", "cache", UNFINISHED}  # what a start makes, and nothing is lost with


def restore_backup(
    *, home: Path, source: Path, replace: bool, now: datetime, start: Start, say: Say, moved: Progress
) -> Manifest:
    """Bring the backup `source`, or the newest in it, into the data folder `home` and the database.

    `start` is entered once the folder is ready for a database. Raises BadInput if the backup is damaged or of a newer
    version, Conflict if there is data already and `replace` is false, Unavailable if the database refuses it.
    """
    folder, manifest, wrong = check_backup(source, say=say, moved=moved)
    if wrong:
        and_more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise BadInput(f"The backup is damaged: {wrong[0]}{and_more}. Use an earlier one.")
    if newer := database.newer_migrations(manifest.migrations):
        raise BadInput(
            f"This backup was made by a newer Tutelage ({manifest.tutelage}; it has {newer[-1]}). Install that version "
            "or a later one, then restore."
        )
    make_room(home, replace=replace, now=now, needed=sum(file.size for file in manifest.files.values()), say=say)
    with unfinished_until_done(home):
        with start():
            put_database(folder, manifest, replace=replace, say=say)
        say(f"Files: {len(manifest.files):,}")
        for name, entry in manifest.files.items():
            target = inside(home, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            sha256, _ = copy(inside(folder / FILES, name), target, moved)
            if sha256 != entry.sha256:
                raise BadInput(f"{name} changed while it was restored. Restore again.")
            os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
        os.sync()
    return manifest


def put_database(folder: Path, manifest: Manifest, *, replace: bool, say: Say) -> None:
    if not database.is_database_empty() and not replace:
        raise Conflict("The database that DATABASE_URL names has tables already. Add --replace to drop them.")
    say(f"Database: {sum(manifest.rows.values()):,} rows")
    database.load_dump(folder / DUMP, replace=replace)
    counted = database.row_counts()
    wrong = [table for table, count in manifest.rows.items() if counted.get(table) != count]
    if wrong:
        raise Conflict(
            f"{wrong[0]} has {counted.get(wrong[0], 0):,} rows, not {manifest.rows[wrong[0]]:,}. Restore again."
        )
    database.let_go_of_processes()


def make_room(home: Path, *, replace: bool, now: datetime, needed: int, say: Say) -> None:
    """An empty data folder; what was in it goes aside, where a person can still find it. Raises Conflict."""
    home.mkdir(parents=True, exist_ok=True)
    unfinished = (home / UNFINISHED).exists()
    existing = [path for path in home.iterdir() if path.name not in NOT_DATA and not path.name.startswith("replaced-")]
    if {path.name for path in existing} == {"secret_key"}:  # which reading the settings makes
        existing = []
    if existing and not (replace or unfinished):
        raise Conflict(
            f"{home} holds data already ({', '.join(sorted(path.name for path in existing)[:4])}). Choose an empty "
            "folder "
            "with TUTELAGE_HOME=/path, or add --replace: what is there is moved to a folder beside the new data."
        )
    if needed > (free := free_space_left(home)):
        raise Conflict(
            f"The files need {needed / 1e9:.1f} GB, and {home} has {free / 1e9:.1f} GB free.", code="disk_full"
        )
    if existing:
        aside = home / now.strftime("replaced-%Y-%m-%dT%H%M%SZ")
        aside.mkdir(exist_ok=True)
        for path in existing:
            path.rename(aside / path.name)
        say(f"What was in {home} is now in {aside}")


@contextmanager
def unfinished_until_done(home: Path) -> Iterator[None]:
    """A restore that is cut short must not look like an installation: the site does not start on it."""
    (home / UNFINISHED).write_text("A restore was begun here and has not ended.\n")
    yield
    (home / UNFINISHED).unlink()
