"""Files of any usual format as records, each with the place it came from.

JSONL, JSON, CSV, TSV, Parquet, plain text and HTML, each plain or gzipped. A record is a dictionary, or a string where
the file holds bare strings. Bad bytes, bad JSON and bad columns raise BadInput with file and line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from webapp.errors import BadInput

Record = dict[str, Any] | str
FORMATS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md", ".html", ".htm")

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


@dataclass(frozen=True)
class Place:
    """Where a record stands: the file's name, and its line (text formats) or row (Parquet, JSON lists), from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def file_format(path: Path) -> str:
    """The lower-case suffix that says how to read the file, a final .gz left aside."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    found = suffixes[-1] if suffixes else ""
    if found not in FORMATS:
        raise BadInput(
            f"{path.name}: cannot tell what this file holds. Name it {', '.join(FORMATS)} (a .gz may follow)."
        )
    return found


@contextmanager
def open_bytes(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The file's bytes, unpacked where it is gzipped, and the file itself, whose position tells how far it is read."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}.") from error
    with raw:
        if raw.peek(2)[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast("IO[bytes]", unpacked), raw
        else:
            yield raw, raw


def read(path: Path, on_position: Callable[[int], None] | None = None) -> Iterator[tuple[Place, Record]]:
    """Every record of the file, in order. `on_position` hears, now and then, how many bytes of the file are read."""
    with open_bytes(path) as (stream, raw):
        for count, found in enumerate(records(stream, path)):
            if on_position and count % 500 == 0:
                on_position(raw.tell())
            yield found


def records(stream: IO[bytes], path: Path) -> Iterator[tuple[Place, Record]]:
    kind = file_format(path)
    try:
        if kind in (".jsonl", ".ndjson"):
            yield from read_json_lines(stream, path.name)
        elif kind == ".json":
            yield from read_json(stream, path.name)
        elif kind in (".csv", ".tsv"):
            yield from read_table(stream, path.name, "\t" if kind == ".tsv" else ",")
        elif kind == ".parquet":
            yield from read_parquet(stream, path.name)
        else:
            text = decode(stream.read(), Place(path.name, 1))
            yield Place(path.name, 1), {"text": text, "format": "html" if kind in (".html", ".htm") else "text"}
    except (gzip.BadGzipFile, EOFError) as error:
        raise BadInput(f"{path.name}: the gzip file is damaged or cut short ({error}). Fetch it again.") from error


def decode(raw: bytes, place: Place) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{place}: not UTF-8 text (byte {error.start}). Save the file as UTF-8.") from error


def read_json_lines(stream: IO[bytes], name: str) -> Iterator[tuple[Place, Record]]:
    for number, raw in enumerate(stream, 1):
        place = Place(name, number)
        line = decode(raw, place).strip()
        if line:
            yield place, parse(line, place)


def read_json(stream: IO[bytes], name: str) -> Iterator[tuple[Place, Record]]:
    """A JSON list of records, an object with one such list in it, or a single record."""
    whole = parse_any(decode(stream.read(), Place(name, 1)), Place(name, 1))
    if isinstance(whole, dict):
        lists = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        found = lists[0] if len(lists) == 1 and len(whole) == 1 else [whole]
    else:
        found = whole if isinstance(whole, list) else [whole]
    for number, record in enumerate(found, 1):
        yield Place(name, number), as_record(record, Place(name, number))


def read_table(stream: IO[bytes], name: str, delimiter: str) -> Iterator[tuple[Place, Record]]:
    text = io.StringIO(decode(stream.read(), Place(name, 1)), newline="")
    reader = csv.DictReader(text, delimiter=delimiter)
    if not reader.fieldnames:
        raise BadInput(f"{name}:1: the file is empty; its first line must name the columns.")
    try:
        for row in reader:
            place = Place(name, reader.line_num)
            if None in row:
                raise BadInput(
                    f"{place}: more fields than the first line names ({len(reader.fieldnames)}). "
                    "Quote fields with commas in them."
                )
            yield place, {key: value for key, value in row.items() if value not in (None, "")}
    except csv.Error as error:
        raise BadInput(f"{Place(name, reader.line_num)}: {error}.") from error


def read_parquet(stream: IO[bytes], name: str) -> Iterator[tuple[Place, Record]]:
    # Here, because it takes 90 MB that no process needs before it reads such a file.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.ParquetFile(pa.BufferReader(stream.read()))
    except pa.ArrowInvalid as error:
        raise BadInput(f"{name}: not a Parquet file, or a damaged one ({error}).") from error
    number = 0
    for batch in table.iter_batches(1000):
        for record in batch.to_pylist():
            number += 1
            yield Place(name, number), record


def parse(line: str, place: Place) -> Record:
    return as_record(parse_any(line, place), place)


def parse_any(text: str, place: Place) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = place.line + error.lineno - 1
        raise BadInput(f"{place.file}:{line}: not valid JSON: {error.msg} at column {error.colno}.") from error


def as_record(value: Any, place: Place) -> Record:
    if isinstance(value, dict | str):
        return value
    raise BadInput(f"{place}: expected an object or a string, found {type(value).__name__}.")
