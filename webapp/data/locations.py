"""Where a record stands, and how far reading goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

Record = dict[str, Any] | str

MAX_RECORD: Final = 16 * 1024 * 1024  # bytes of one line, one object of a JSON list, or one row of a table
MAX_DOCUMENT: Final = 64 * 1024 * 1024  # bytes of a text file that is one document
MAX_DEPTH: Final = 200  # how deep JSON may be nested
MAX_MEMBERS: Final = 10_000  # files in an archive


@dataclass(frozen=True)
class Location:
    """Where a record stands: the file's name, and its line (text formats) or row (Parquet, JSON lists), from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read. `reason` is the same for rows of the same fault, `sentence` says more of this one."""

    reason: str
    sentence: str


@dataclass(frozen=True)
class Note:
    """Something a person should know about how a file was read."""

    text: str


def readable_size(count: int) -> str:
    """Bytes for people: 16 MB."""
    for unit, length in (("GB", 1024**3), ("MB", 1024**2), ("kB", 1024)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count} bytes"
