"""Unpacking a model that somebody packed, of whom nothing is known: no file leaves the folder, no link, no bomb.

Only files that a model needs are written, under names that are checked one by one; nothing is trusted that an archive
says of itself but the sizes, which are limits at the same time.
"""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from training.contract import GGUF, KEPT, PICKLES, InputError, pickled_only
from training.models.model_files import BLOCK, Step, check_room

MAX_MEMBERS: Final = 10_000
MAX_DEPTH: Final = 20
MAX_RATIO: Final = 4  # of what is unpacked to the archive; weights hardly shrink
MAX_SMALL: Final = 1 << 30  # bytes that an archive may unpack to beside that, whatever its size
MAX_READ: Final = 64 << 20  # bytes that the library may want at once: a header, or one block
DAMAGED: Final = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError)
DRIVE: Final = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True)
class Member:
    path: str
    size: int
    is_file: bool
    is_folder: bool
    entry: Any


def unpack(archive: Path, target: Path, step: Step) -> Path:
    """Unpack the model in a zip or tar file below `target`; its folder there. `step` is told of the bytes written.

    Raises InputError if the archive is damaged, encrypted, holds links or names that lead out of it, would unpack to
    much more than its size or than the disk has room for, or holds no model.
    """
    limit = archive.stat().st_size * MAX_RATIO + MAX_SMALL
    places: dict[PurePosixPath, Path] = {}
    passed_over: list[str] = []
    total = count = 0
    try:
        with opened(archive) as (members, read):
            for member in members:
                count, total = count + 1, total + member.size
                path = checked_path(member)
                if count > MAX_MEMBERS or total > limit:
                    raise refused(
                        f"it unpacks to more than {limit / 1e9:.1f} GB, {MAX_RATIO} times its size"
                        if total > limit
                        else f"it holds more than {MAX_MEMBERS:,} files"
                    )
                if member.is_folder:
                    continue
                if not is_kept(path.name):
                    passed_over.append(path.name)
                    continue
                folder = places.setdefault(path.parent, target / f"{len(places)}")
                folder.mkdir(exist_ok=True)
                check_room(target, member.size, "to unpack it")
                write_member(read(member), folder / path.name, member.size, step)
    except DAMAGED as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise InputError(
            f"this archive is damaged, or not what its name says ({reason}); pack and send it again",
            code="model_damaged",
        ) from error
    return model_folder(places, passed_over)


def is_kept(name: str) -> bool:
    return bool(KEPT.fullmatch(name) or name.lower().endswith(GGUF))


def checked_path(member: Member) -> PurePosixPath:
    """Where the member says it belongs. Raises InputError for a link, a device, or a place outside the archive."""
    name = member.path
    path = PurePosixPath(name)
    printable = name[:100].encode("ascii", "backslashreplace").decode()
    if not (member.is_file or member.is_folder):
        raise refused(f"{printable} in it is a link or a device; pack the files themselves (zip -r, or tar -h)")
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\x00" in name or DRIVE.match(name):
        raise refused(f"{printable} in it leads out of the folder that it is unpacked into")
    if len(path.parts) > MAX_DEPTH:
        raise refused(f"{printable} in it lies more than {MAX_DEPTH} folders deep")
    return path


def write_member(content: IO[bytes], target: Path, size: int, step: Step) -> None:
    if target.exists():
        raise refused(f"{target.name} is in it twice")
    written = 0
    with content, target.open("xb") as file:
        while block := content.read(min(BLOCK, MAX_READ)):
            written += len(block)
            if written > size:
                raise refused(f"{target.name} in it is longer than the archive says")
            file.write(block)
            step(len(block))
    if written < size:
        raise EOFError(f"{target.name} ends after {written:,} of {size:,} bytes")


def model_folder(places: dict[PurePosixPath, Path], passed_over: list[str]) -> Path:
    """The unpacked folder with the model: the one nearest to the top."""
    for place in sorted(places, key=lambda place: len(place.parts)):
        names = [path.name for path in places[place].iterdir()]
        if "config.json" in names or "adapter_config.json" in names or any(name.endswith(GGUF) for name in names):
            if error := pickled_only([*names, *passed_over], "this archive"):
                raise error
            return places[place]
    if any(PICKLES.fullmatch(name) for name in passed_over):
        raise refused("its weights are pickled, which can run code when they are read; convert them to safetensors")
    raise refused(
        "there is no config.json in it; pack the folder that holds the model’s config.json, safetensors and tokenizer"
    )


def refused(why: str) -> InputError:
    return InputError(f"this archive is not taken: {why}", code="archive_refused")


# ------------------------------------------------------------------------------------------------------ the two formats


@contextmanager
def opened(archive: Path) -> Iterator[tuple[Iterator[Member], Any]]:
    """The members of an archive in their order, and what opens one of them for reading."""
    name = archive.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            yield zip_members(packed), lambda member: packed.open(member.entry)
        return
    with archive.open("rb") as file:
        source: Any = gzip.GzipFile(fileobj=file) if name.endswith("gz") else file
        with tarfile.open(fileobj=cast("IO[bytes]", Cautious(source)), mode="r:") as packed_tar:
            yield tar_members(packed_tar), lambda member: packed_tar.extractfile(member.entry)


def zip_members(packed: zipfile.ZipFile) -> Iterator[Member]:
    for entry in packed.infolist():
        if entry.flag_bits & 1:
            raise refused("it is encrypted; pack it without a password")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        folder = entry.is_dir()
        yield Member(entry.filename, entry.file_size, kind in (0, stat.S_IFREG) and not folder, folder, entry)


def tar_members(packed: tarfile.TarFile) -> Iterator[Member]:
    for entry in packed:
        if entry.issparse():
            raise refused(f"{entry.name[:100]} in it is a sparse file; pack it without --sparse")
        yield Member(entry.name, entry.size, entry.isreg(), entry.isdir(), entry)


class Cautious:
    """A file that is read in bounded pieces only: tarfile would take a header of any size into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise refused("a header in it is larger than any that a model needs")
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
