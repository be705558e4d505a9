"""Copying the data folder's files into a backup and back, each with its hash."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from webapp.backups.manifest import FILES, BackedUpFile
from webapp.errors import BadInput

PIECE = 1 << 20
FOLDERS = ("uploads", "artefacts", "runs")
SINGLE = ("secret_key",)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
Progress = Callable[[int], None]


def files_of(home: Path) -> Iterator[str]:
    """What is worth keeping of a data folder, by path from there. What the database names comes after what names it."""
    for name in SINGLE:
        if (home / name).is_file():
            yield name
    for folder in FOLDERS:
        for top, folders, names in os.walk(home / folder):
            folders[:] = sorted(name for name in folders if not name.startswith("snapshot-"))  # being written
            for name in sorted(names):
                path = Path(top, name)
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(home).as_posix()


def copy_or_link(
    home: Path, name: str, target: Path, before: tuple[Path, BackedUpFile] | None, moved: Progress
) -> BackedUpFile | None:
    """Bring one file into a backup; None if it has gone meanwhile, as an old checkpoint does.

    `before`: the last backup and what it says of this file. Where its size and time are the same it is linked.
    """
    source = home / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        stat = source.stat()
        if before and unchanged(stat, before[1]) and link(before[0] / FILES / name, target):
            moved(stat.st_size)
            return before[1]
        sha256, size = copy(source, target, moved)
    except FileNotFoundError:
        target.unlink(missing_ok=True)
        return None
    return BackedUpFile(sha256=sha256, size=size, mtime_ns=stat.st_mtime_ns)


def unchanged(stat: os.stat_result, earlier: BackedUpFile) -> bool:
    return (stat.st_size, stat.st_mtime_ns) == (earlier.size, earlier.mtime_ns)


def link(source: Path, target: Path) -> bool:
    """Whether the file system can; without links a backup is as good, and takes its whole size."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True


def copy(source: Path, target: Path, moved: Progress) -> tuple[str, int]:
    """sha256 and size of what was copied, which of a growing file is a beginning of it."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(PIECE):
            digest.update(block)
            write.write(block)
            size += len(block)
            moved(len(block))
    return digest.hexdigest(), size


def check_file(path: Path, expected: BackedUpFile, moved: Progress) -> str:
    """What is wrong with a file of a backup; nothing if it is what it was."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as read:
            while block := read.read(PIECE):
                digest.update(block)
                moved(len(block))
    except OSError as error:
        return f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
    return "" if digest.hexdigest() == expected.sha256 else f"{path} is not the file that was backed up"


def inside(folder: Path, name: str) -> Path:
    """A path of a manifest, which must not lead out of its folder. Raises BadInput."""
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(folder) or path == folder:
        raise BadInput(f"The manifest names {name}, which is not in the backup. Do not use this backup.")
    return path
