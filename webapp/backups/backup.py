"""Making a backup while the site runs, and checking one.

Order matters: first the database as of one moment, then the files. What the database named at that moment is there by
then, and files that are added later do no harm.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from webapp.backups import database
from webapp.backups.files import Progress, check_file, copy_or_link, files_of, inside, unchanged
from webapp.backups.manifest import (
    DUMP,
    FILES,
    BackedUpFile,
    Manifest,
    backups_in,
    newest_backup,
    tutelage_version,
)
from webapp.errors import BadInput, Conflict
from webapp.home_folder import keep_private
from webapp.supervisor.folder import free_space_left

PARTIAL = ".partial-"
Say = Callable[[str], None]


@dataclass(frozen=True)
class WrittenBackup:
    """A backup that is whole. `missing`: files that the database names and that were not there to be copied."""

    folder: Path
    manifest: Manifest
    copied: int  # bytes
    linked: int  # bytes that the backup before had already
    missing: list[str]


def make_backup(
    *, home: Path, destination: Path, now: datetime, say: Say, moved: Progress, keep: int = 0
) -> WrittenBackup:
    """A new folder in `destination`, named by the time. What did not change since the last backup is linked to it.

    `keep`: how many backups to leave there, the newest; 0 leaves all. Raises BadInput, Conflict where another backup is
    being made there, Unavailable where the database cannot be dumped, OSError for a full disk.
    """
    if destination.resolve().is_relative_to(home):
        raise BadInput(f"{destination} is in the data folder itself. Choose a folder on another disk or machine.")
    keep_private()
    destination.mkdir(parents=True, exist_ok=True)
    with only_one(destination):
        for leftover in destination.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover)
        name = now.strftime("%Y-%m-%dT%H%M%SZ")
        folder, final = destination / f"{PARTIAL}{name}", destination / name
        if final.exists():
            raise Conflict(f"{final} exists already. Try again in a second.")
        folder.mkdir(mode=0o700)
        try:
            written = write_backup(home, folder, newest_of(destination), now, say, moved)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        os.sync()
        folder.rename(final)
        for old in backups_in(destination)[: -keep or None] if keep else []:
            shutil.rmtree(old)
    return WrittenBackup(final, written.manifest, written.copied, written.linked, written.missing)


def write_backup(
    home: Path, folder: Path, before: tuple[Path, Manifest] | None, now: datetime, say: Say, moved: Progress
) -> WrittenBackup:
    with database.one_moment() as moment:
        say(f"Database: {sum(moment.rows.values()):,} rows in {len(moment.rows)} tables")
        database.dump(moment, folder / DUMP)
    names = list(files_of(home))
    earlier_files = before[1].files if before else {}
    check_space(home, folder, names, earlier_files)
    say(f"Files: {len(names):,}")
    files: dict[str, BackedUpFile] = {}
    sizes = {"copied": 0, "linked": 0}
    for name in names:
        earlier = (before[0], earlier_files[name]) if before and name in earlier_files else None
        backed_up = copy_or_link(home, name, folder / FILES / name, earlier, moved)
        if backed_up is not None:
            files[name] = backed_up
            sizes["linked" if earlier and backed_up is earlier[1] else "copied"] += backed_up.size
    manifest = Manifest(
        made_at=now.isoformat(),
        tutelage=tutelage_version(),
        postgres=moment.server,
        migrations=moment.migrations,
        rows=moment.rows,
        references=moment.references,
        outside=moment.outside,
        dump=hashed(folder / DUMP),
        files=files,
    )
    manifest.write(folder)
    missing = [name for name in moment.references if name not in files]
    return WrittenBackup(folder, manifest, sizes["copied"], sizes["linked"], missing)


@contextmanager
def only_one(destination: Path) -> Iterator[None]:
    with (destination / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"Another backup is being written to {destination}. Wait until it ends.") from error
        yield


def newest_of(destination: Path) -> tuple[Path, Manifest] | None:
    """The last backup that can be read, to link to."""
    for folder in reversed(backups_in(destination)):
        try:
            return folder, Manifest.read(folder)
        except BadInput:
            continue
    return None


def check_space(home: Path, folder: Path, names: list[str], earlier_files: dict[str, BackedUpFile]) -> None:
    """Raises Conflict if the disk cannot hold what is new."""
    needed = 0
    for name in names:
        try:
            stat = (home / name).stat()
        except FileNotFoundError:
            continue
        earlier = earlier_files.get(name)
        if earlier is None or not unchanged(stat, earlier):
            needed += stat.st_size
    if needed > (free := free_space_left(folder)):
        raise Conflict(
            f"The backup needs {needed / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free. Make room, "
            "or choose another disk.",
            code="disk_full",
        )


def hashed(path: Path) -> BackedUpFile:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return BackedUpFile(sha256=sha256, size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns)


def check_backup(source: Path, *, say: Say, moved: Progress) -> tuple[Path, Manifest, list[str]]:
    """Read every byte of a backup again; its folder and what is wrong with it, a sentence each. Raises BadInput."""
    folder = newest_backup(source)
    manifest = Manifest.read(folder)
    say(f"Checking {folder}; files: {len(manifest.files):,}")
    wrong = [check_file(folder / DUMP, manifest.dump, moved)]
    wrong += [check_file(inside(folder / FILES, name), entry, moved) for name, entry in manifest.files.items()]
    if not wrong[0]:
        database.check_dump(folder / DUMP)
    return folder, manifest, [sentence for sentence in wrong if sentence]
