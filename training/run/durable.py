"""What a folder of files needs to survive a kill or a power cut: a lock, and writes that are whole or not there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from training.contract import LOCK, InputError

PARTIAL: Final = ".partial"
REPLACED: Final = ".replaced" + PARTIAL  # what bore a name until the new folder has it


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The kernel lets go of it with the process, so a killed run leaves no stale lock."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such run folder", code="config_missing")
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is working on this run", code="run_locked") from None
        yield


@contextmanager
def aside(parent: Path, name: str) -> Iterator[Path]:
    """A folder to write in, that becomes parent/name, durably, when the block ends well, and goes when it does not."""
    partial, final = parent / (name + PARTIAL), parent / name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            sync(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if final.is_dir():
        final.rename(parent / (name + REPLACED))
    partial.rename(final)
    sync(parent)
    shutil.rmtree(parent / (name + REPLACED), ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a folder so that a kill half-way leaves nothing that bears its name."""
    leaving = folder.with_name(folder.name + PARTIAL)
    folder.rename(leaving)
    shutil.rmtree(leaving)


def write_aside(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(text)
    sync(partial)
    partial.rename(path)
    sync(path.parent)


def sweep(folder: Path) -> None:
    """Remove what a killed process was writing; what it had moved away to replace it comes back."""
    for old in folder.glob("*" + REPLACED):
        if not (final := folder / old.name.removesuffix(REPLACED)).exists():
            old.rename(final)
    for leftover in folder.glob("*" + PARTIAL):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make the file or folder outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
