"""The artefact store: folders of files in any fsspec file system, named by the hash of what is in them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from django.conf import settings
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from webapp.errors import Conflict, Unavailable
from webapp.registry.addresses import resolved, stored
from webapp.registry.models import ModelVersion

PIECE = 1 << 20


def folder_digest(files: dict[str, str]) -> str:
    """One sha256 for a folder: of the sorted list of its files' hashes."""
    lines = "".join(f"{path} {sha256}\n" for path, sha256 in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """sha256 by path of every file under `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def publish_folder(folder: Path, *, folder_name: str, files: dict[str, str], given: bool = False) -> str:
    """Copy `files` (sha256 by path) of a local folder to <store>/<place>/<digest>/; its name for the database.
    `given`: nobody else writes to these files and the folder goes soon, so a store on the same disk links them.

    Twice the same content is stored once. Raises Conflict if a file is not what its hash says, and Unavailable where
    the store cannot be written to.
    """
    address = f"{settings.ARTEFACTS_URL.rstrip('/')}/{folder_name}/{folder_digest(files)[:32]}"
    try:
        fs, target = open_store(address)
        if fs.exists(f"{target}/{MANIFEST}"):
            return stored(address, settings.HOME)
        local = isinstance(fs, LocalFileSystem)
        aside = f"{target}.{uuid.uuid4().hex[:8]}" if local else target
        for path, sha256 in files.items():
            if not (given and local and link_file(folder / path, Path(f"{aside}/{path}"), sha256)):
                copy_file(folder / path, fs, f"{aside}/{path}", sha256)
        with fs.open(f"{aside}/{MANIFEST}", "wb") as file:  # written last: its presence says that the folder is whole
            file.write("".join(f"{sha256}  {path}\n" for path, sha256 in sorted(files.items())).encode())
        if local:
            shutil.rmtree(target, ignore_errors=True)
            Path(aside).rename(target)
    except OSError as error:
        raise store_error(error, address) from error
    return stored(address, settings.HOME)


MANIFEST = "sha256sums.txt"


def copy_file(source: Path, fs: AbstractFileSystem, target: str, sha256: str) -> None:
    fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as read, fs.open(target, "wb") as write:
        while block := read.read(PIECE):
            digest.update(block)
            write.write(block)
    if digest.hexdigest() != sha256:
        raise changed_file(source)


def link_file(source: Path, target: Path, sha256: str) -> bool:
    """Give the file a second name in the store; False where that cannot be, as on another disk. Raises Conflict if it
    is not what its hash says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        return False
    if sha256_of(target) != sha256:
        target.unlink()
        raise changed_file(source)
    mask = os.umask(0)
    os.umask(mask)
    target.chmod(0o666 & ~mask)  # as a copy of it would have: safetensors are written for their owner alone
    return True


def changed_file(source: Path) -> Conflict:
    return Conflict(f"{source} changed while it was copied to the model storage. Run it again.", code="damaged")


def open_store(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system and the path in it of a name of the database, or of an fsspec address."""
    fs, path = url_to_fs(resolved(address, settings.HOME))
    return fs, path


def open_file(address: str) -> Any:
    """A file of the store, open for reading bytes; a context manager. Raises Unavailable."""
    try:
        fs, path = open_store(address)
        return fs.open(path, "rb")
    except OSError as error:
        raise store_error(error, address) from error


class FileFacts(NamedTuple):
    """size: bytes. version: what tells this content from what was in the file before."""

    size: int
    version: str


def file_facts(address: str) -> FileFacts:
    """Raises Unavailable where the file is not there or the store does not answer."""
    try:
        fs, path = open_store(address)
        facts = fs.info(path)
    except OSError as error:
        raise store_error(error, address) from error
    marks = [str(facts.get(key)) for key in ("size", "mtime", "ETag", "LastModified", "last_modified", "generation")]
    return FileFacts(int(facts["size"]), " ".join(marks))


def fetch_file(address: str, target: Path) -> None:
    """Copy one file of the store to a local path."""
    with open_file(address) as read, target.open("wb") as write:
        shutil.copyfileobj(read, write, PIECE)


def rewrite_lines(address: str, change: Callable[[bytes], bytes | None]) -> bool:
    """Write a file of the store again from its lines, each as `change` gives it back, or without it (None). Whether
    anything was different; a file that is not there has no lines. Raises Unavailable."""
    different = False
    try:
        fs, path = open_store(address)
        if not fs.exists(path):
            return False
        aside = f"{path}.{uuid.uuid4().hex[:8]}"
        with fs.open(path, "rb") as read, fs.open(aside, "wb") as write:
            for line in read:
                changed = change(line)
                different = different or changed != line
                write.write(changed or b"")
        if different:
            fs.mv(aside, path)  # a rename where the store is a folder, so that nobody reads half a file
        else:
            fs.rm(aside)
    except OSError as error:
        raise store_error(error, address) from error
    return different


def remove_folder(address: str) -> None:
    """Delete a folder of the store; one that is not there is as good. Raises Unavailable."""
    try:
        fs, path = open_store(address)
        if fs.exists(path):
            fs.rm(path, recursive=True)
    except OSError as error:
        raise store_error(error, address) from error


def store_error(error: OSError, address: str) -> Unavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            f"The disk that holds {address} is full: free some space, then resume the run; nothing is lost.",
            code="disk_full",
        )
    reason = error.strerror or str(error)
    return Unavailable(f"The model storage cannot be used: {address}: {reason}", code="store_unavailable")


def local_folder(model: ModelVersion) -> Path:
    """A verified folder on this machine with the model's files, fetched from the store where it is elsewhere.

    Raises Conflict (code `damaged`) that names the file, Unavailable where the store does not answer.
    """
    if (base := base_of(model)) is not None:
        fetch_base(base)
    fs, path = open_store(model.artefact)
    if isinstance(fs, LocalFileSystem):
        verify(model, Path(path))
        return Path(path)
    cached = settings.RUNS_FOLDER.parent / "cache" / "models" / model.sha256[:32]
    if not cached.is_dir():
        aside = cached.with_suffix(f".{uuid.uuid4().hex[:8]}")
        aside.mkdir(parents=True)
        for name in model.files:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            fetch_file(f"{model.artefact}/{name}", aside / name)
        verify(model, aside)
        aside.rename(cached)
    verify(model, cached)
    return cached


def base_of(model: ModelVersion) -> ModelVersion | None:
    """The whole model under an adapter: the nearest forebear that is no adapter. None if that is not one of ours."""
    ancestor: ModelVersion | None = model
    while ancestor is not None and ancestor.kind == ModelVersion.Kind.ADAPTER:
        ancestor = ancestor.parent
    return None if ancestor is model else ancestor


def fetch_base(base: ModelVersion) -> None:
    """Make sure that a base stands beside its adapters, where training looks for it (training/run/placement.py).

    Raises Conflict (code `damaged`). Hashes are compared when it is fetched; a local one may be large and only
    has to be there.
    """
    fs, path = open_store(base.artefact)
    if not isinstance(fs, LocalFileSystem):
        local_folder(base)
    elif missing := [name for name in base.files if not Path(path, name).exists()]:
        raise damaged_model(base, f"{Path(path, missing[0])} is missing")


def verify(model: ModelVersion, folder: Path) -> None:
    """Hold the folder against the hashes that the model was registered with."""
    for name, sha256 in ({".": ""} | model.files).items():
        path = folder / name
        if not path.exists():
            problem = f"{path} is missing"
        elif sha256 and sha256_of(path) != sha256:
            problem = f"{path} is not the file that was registered"
        else:
            continue
        raise damaged_model(model, problem)


def damaged_model(model: ModelVersion, problem: str) -> Conflict:
    return Conflict(
        f"Model {model.number} ({model.name}) is damaged: {problem}. Put the folder back from a backup, "
        "or make the model again by retrying its run.",
        code="damaged",
        model=model.pk,
    )
