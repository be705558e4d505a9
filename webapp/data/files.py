"""Files of any usual format as records, each with the place it came from.

JSONL, JSON, CSV, TSV, Parquet, Arrow, plain text and HTML, each plain or packed (gzip, zstd, bzip2, xz), or several in
a zip archive. A record is a dictionary, or a string where the file holds bare strings. What is unpacked, the length of
a record and its depth are bounded (webapp.data.locations, IMPORT_MAX_UNPACKED).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, cast

from webapp.data.columnar import read_arrow, read_parquet, seekable
from webapp.data.decoding import OnNote, as_utf8, chunks, lines
from webapp.data.json_files import read_json, read_json_lines
from webapp.data.locations import MAX_DOCUMENT, BadRow, Location, Record, readable_size
from webapp.data.packing import (
    COMPRESSIONS,
    DAMAGED,
    Budget,
    damaged_archive,
    is_about,
    is_packed,
    members,
    opened,
    unpacked,
)
from webapp.data.tables import read_table
from webapp.errors import BadInput

__all__ = ["FORMATS", "Location", "Record", "file_format", "read_file_rows", "read_records"]

PROGRESS_ROWS: Final = 500  # progress is reported every so many rows
TEXTS: Final = (".txt", ".md", ".html", ".htm")
FORMATS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", *TEXTS, ".zip")
# A JSON list, or records of several lines each, in a file that is named as JSON lines.
LIST: Final = re.compile(rb"\s*(?:\[\s*[{\n]|\{\s*\n)")
Found = tuple[Location, Record | BadRow]


def file_format(path: Path) -> str:
    """The lower-case suffix that says how to read the file, that of a compression left aside."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    extension = suffixes[-1] if suffixes else ""
    if extension not in FORMATS:
        raise BadInput(
            f"{path.name}: cannot tell what this file holds. Name it {', '.join(FORMATS)} "
            f"({', '.join(COMPRESSIONS)} may follow)."
        )
    return extension


def read_records(path: Path, on_position: Callable[[int], None] | None = None) -> Iterator[tuple[Location, Record]]:
    """Every record of the file, in order. Raises BadInput at the first row that cannot be read."""
    for location, record in read_file_rows(path, on_position=on_position):
        if isinstance(record, BadRow):
            raise BadInput(record.sentence)
        yield location, record


def read_file_rows(
    path: Path,
    *,
    on_position: Callable[[int], None] | None = None,
    on_note: OnNote | None = None,
    budget: Budget | None = None,
    by_line: bool = False,
) -> Iterator[Found]:
    """Every row of the file, in order; those that cannot be read as BadRow. Raises BadInput for a file that cannot be
    read on. `on_position` hears, now and then, how many bytes of the file are read, `on_note` what a person should know
    (an encoding that was guessed). `by_line` takes each line of a plain text as a record."""
    kind = file_format(path)
    note = on_note or unheard
    budget = budget or Budget()
    name = path.name.encode("utf-8", "replace").decode()
    with opened(path) as raw:
        rows = (
            read_archive(raw, name, note, budget, by_line=by_line)
            if kind == ".zip"
            else records(raw, raw.peek(8)[:8], kind, name, note, budget, by_line=by_line)
        )
        for count, row in enumerate(rows):
            if on_position and count % PROGRESS_ROWS == 0:
                on_position(raw.tell())
            yield row


def unheard(_text: str, _place: Location) -> None:
    """For callers who want no notes."""


def read_archive(raw: IO[bytes], name: str, on_note: OnNote, budget: Budget, *, by_line: bool) -> Iterator[Found]:
    """The files of a zip archive, one after another; those of no format that is read are noted and passed over."""
    for member, stream in members(raw, name):
        inner = f"{name}/{member}"
        if is_about(member):
            on_note("a file that describes the archive was passed over", Location(inner, 1))
            continue
        try:
            kind = file_format(Path(member))
        except BadInput:
            on_note("a file in the archive of no format that is read was passed over", Location(inner, 1))
            continue
        if kind == ".zip":
            raise BadInput(f"{inner}: an archive in an archive. Unpack it first.")
        buffered = io.BufferedReader(cast("io.RawIOBase", stream))
        try:
            start = buffered.peek(8)[:8]
        except DAMAGED as error:
            raise damaged_archive(inner, error) from error
        yield from records(buffered, start, kind, inner, on_note, budget, by_line=by_line, is_member=True)


def records(
    raw: IO[bytes],
    start: bytes,
    kind: str,
    name: str,
    on_note: OnNote,
    budget: Budget,
    *,
    by_line: bool = False,
    is_member: bool = False,
) -> Iterator[Found]:
    """The rows of one file whose bytes begin with `start`."""
    stream = unpacked(raw, start, name, budget)
    if kind in (".parquet", ".arrow"):
        file = seekable(stream, raw, packed=is_member or is_packed(start))
        yield from (read_parquet if kind == ".parquet" else read_arrow)(file, name, budget)
        return
    stream = as_utf8(stream, name, on_note)
    if kind in (".jsonl", ".ndjson") and not LIST.match(stream.peek(64)):
        yield from read_json_lines(stream, name, on_note)
    elif kind in (".jsonl", ".ndjson", ".json"):
        yield from read_json(stream, name, on_note)
    elif kind in (".csv", ".tsv"):
        yield from read_table(stream, name, on_note, is_tsv=kind == ".tsv")
    elif by_line and kind in (".txt", ".md"):
        yield from read_lines(stream, name, on_note)
    else:
        yield read_text_file(stream, kind, name, on_note)


def read_text_file(stream: io.BufferedReader, kind: str, name: str, on_note: OnNote) -> Found:
    """A text file as one record."""
    texts: list[str] = []
    length = 0
    for text in chunks(stream, name, on_note):
        texts.append(text)
        length += len(text)
        if length > MAX_DOCUMENT:
            raise BadInput(
                f"{name}: one document of more than {readable_size(MAX_DOCUMENT)}. Split it into several files."
            )
    return Location(name, 1), {"text": "".join(texts), "format": "html" if kind in (".html", ".htm") else "text"}


def read_lines(stream: io.BufferedReader, name: str, on_note: OnNote) -> Iterator[Found]:
    """Each line of a plain text that says something."""
    for number, line in lines(stream, name, on_note):
        text = line if isinstance(line, BadRow) else line.rstrip("\r\n")
        if isinstance(text, BadRow) or text.strip():
            yield Location(name, number), text
