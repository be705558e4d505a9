"""Compressed files as streams of bounded length: gzip, zstd, bzip2 and xz, told apart by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from django.conf import settings

from webapp.data.locations import MAX_MEMBERS, readable_size
from webapp.errors import BadInput

COMPRESSIONS: Final = (".gz", ".zst", ".bz2", ".xz")
XZ_MEMORY: Final = 256 * 1024 * 1024
ABOUT: Final = re.compile(
    r"(?:read[_-]?me|licen[cs]e|copying|notice|citation|changelog)(?:[._-].*)?$"
    r"|(?:dataset_infos?|dataset_dict|state)\.json$",
    re.IGNORECASE,
)
CHUNK: Final = 256 * 1024
# What the readers of damaged files raise; pyarrow's errors are OSError and ValueError.
DAMAGED: Final = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)


class Budget:
    """How many bytes may still be unpacked, in all the files of one import."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = settings.IMPORT_MAX_UNPACKED if limit is None else limit
        self.left = self.limit

    def spend(self, count: int, name: str) -> None:
        self.left -= count
        if self.left < 0:
            raise BadInput(
                f"{name}: more than {readable_size(self.limit)} when it is unpacked. Split it, or raise "
                "IMPORT_MAX_UNPACKED on the server."
            )


class Bounded(io.RawIOBase):
    """A stream that counts what is read from it, and says in a sentence what is wrong with it."""

    def __init__(self, stream: IO[bytes], name: str, budget: Budget) -> None:
        self.stream, self.name, self.budget = stream, name, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except BadInput:
            raise
        except DAMAGED as error:
            raise damaged_archive(self.name, error) from error
        self.budget.spend(len(data), self.name)
        buffer[: len(data)] = data
        return len(data)


class XzStream(io.RawIOBase):
    """An xz file, whose dictionary may take no more memory than XZ_MEMORY (LZMAFile knows no limit)."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self.unpacker = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
        self.input = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self.unpacker.eof:
                self.input = (self.unpacker.unused_data or self.raw.read(CHUNK)).lstrip(b"\0")
                if not self.input:
                    return 0
                self.unpacker = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            elif self.unpacker.needs_input and not self.input:
                self.input = self.raw.read(CHUNK)
                if not self.input:
                    raise EOFError("it ends before its end marker")
            data = self.unpacker.decompress(self.input, len(buffer))
            self.input = b""
            if data:
                buffer[: len(data)] = data
                return len(data)


def zstd_stream(raw: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa  # noqa: PLC0415 (it takes 90 MB that no process needs before it reads such a file)

    return cast("IO[bytes]", pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"))


UNPACKERS: Final[tuple[tuple[bytes, Callable[[IO[bytes]], IO[bytes]]], ...]] = (
    (b"\x1f\x8b", lambda raw: cast("IO[bytes]", gzip.GzipFile(fileobj=raw))),
    (b"\x28\xb5\x2f\xfd", zstd_stream),
    (b"BZh", lambda raw: cast("IO[bytes]", bz2.BZ2File(raw))),
    (b"\xfd7zXZ\x00", lambda raw: cast("IO[bytes]", XzStream(raw))),
)


def damaged_archive(name: str, error: BaseException) -> BadInput:
    return BadInput(f"{name}: the file is damaged or cut short ({str(error)[:200]}). Fetch it again.")


def is_packed(start: bytes) -> bool:
    return any(start.startswith(magic) for magic, _ in UNPACKERS)


def unpacked(raw: IO[bytes], start: bytes, name: str, budget: Budget) -> io.BufferedReader:
    """The bytes of a file that begins with `start`, unpacked where they are compressed."""
    unpack = next((unpack for magic, unpack in UNPACKERS if start.startswith(magic)), None)
    try:
        stream = raw if unpack is None else unpack(raw)
    except DAMAGED as error:
        raise damaged_archive(name, error) from error
    return io.BufferedReader(Bounded(stream, name, budget), CHUNK)


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The file itself, as it lies on the disk."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}.") from error
    with raw:
        yield raw


def members(raw: IO[bytes], name: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of a zip archive in their order, one open at a time: name and packed stream. Hidden ones are passed
    over. Raises BadInput for an archive that is damaged, encrypted or too full."""
    try:
        with zipfile.ZipFile(raw) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir() and not is_hidden(info.filename)]
            if len(infos) > MAX_MEMBERS:
                raise BadInput(
                    f"{name}: holds {len(infos):,} files; at most {MAX_MEMBERS:,} are read from one archive."
                )
            for info in infos:
                if info.flag_bits & 1:
                    raise BadInput(f"{name}: {info.filename} is encrypted. Pack the archive without a password.")
                with archive.open(info) as stream:
                    yield info.filename, stream
    except BadInput:
        raise
    except DAMAGED as error:
        raise damaged_archive(name, error) from error


def is_about(name: str) -> bool:
    """Does a file describe the archive that it lies in (README, LICENSE, dataset_info.json), rather than hold data?"""
    return ABOUT.match(name.rpartition("/")[2]) is not None


def is_hidden(name: str) -> bool:
    return any(segment.startswith((".", "__MACOSX")) for segment in name.split("/"))
