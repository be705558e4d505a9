"""CSV and TSV, in the dialect that the file is written in, row by row."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

from webapp.data.decoding import TOO_LONG, OnNote, lines
from webapp.data.locations import MAX_RECORD, BadRow, Location, Record
from webapp.data.shapes.registry import KNOWN_COLUMNS, NAMES, usual_names
from webapp.errors import BadInput

DELIMITERS: Final = ",;\t|"
SAMPLE_LINES: Final = 2000
SAMPLE_BYTES: Final = 4 * 1024 * 1024
MAX_PRINTED: Final = 1024 * 1024
NO_LIST: Final = "a cell with a list that is not JSON"
WRONG: Final = "a row that does not fit its columns"
OWN_ID: Final = re.compile(r"(prompt|demonstration|ranking|judgment|document):\d+")
LISTS: Final = frozenset({
    "messages", "conversations", "conversation", "replies", "groups", "ratings", "flags", "models", "ranks", "scores",
    "history", "choices", "masked_turns", "answers", "responses", "completions", "generations",
})  # fmt: skip
MAY_BE_LISTS: Final = frozenset({"prompt", "chosen", "rejected", "completion"})

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


class NewLines(io.RawIOBase):
    """A table whose lines end with a carriage return alone, as those of old Macintosh programs do."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)


class TableLines:
    """The lines of a table for csv.reader, which can be handed back: an open quote swallows what follows it, and when
    that shows, the lines after the first are read again."""

    def __init__(self, source: Iterator[tuple[int, str | BadRow]]) -> None:
        self.source = source
        self.waiting: list[tuple[int, str | BadRow]] = []
        self.taken: list[tuple[int, str]] = []
        self.length = 0
        self.bad: tuple[int, BadRow] | None = None

    def __iter__(self) -> TableLines:
        return self

    def __next__(self) -> str:
        number, line = self.waiting.pop() if self.waiting else next(self.source)
        if isinstance(line, BadRow):
            self.bad = number, line
            raise csv.Error("a line that is no text")
        self.taken.append((number, line))
        self.length += len(line)
        if self.length > MAX_RECORD:
            raise csv.Error(f"{TOO_LONG}; a quote may be left open")
        return line

    def begin_row(self) -> None:
        self.taken.clear()
        self.length = 0
        self.bad = None

    def hand_back(self) -> None:
        """All that was taken for this row but its first line."""
        self.waiting += reversed(self.taken[1:])

    @property
    def first_line(self) -> int:
        return self.taken[0][0] if self.taken else 1


def read_table(
    stream: io.BufferedReader, name: str, on_note: OnNote, *, is_tsv: bool
) -> Iterator[tuple[Location, Record | BadRow]]:
    start = stream.peek(1)
    if b"\r" in start and b"\n" not in start:
        stream = io.BufferedReader(NewLines(stream))
    source = lines(stream, name, on_note)
    sample: list[tuple[int, str | BadRow]] = []
    for line in source:
        sample.append(line)
        if len(sample) >= SAMPLE_LINES or sum_of(sample) > SAMPLE_BYTES:
            break
    texts = [line for _, line in sample if isinstance(line, str)]
    if not texts:
        raise BadInput(f"{name}:1: the file is empty; its first line must name the columns.")
    named = re.fullmatch(r"sep=(.)\s*", texts[0].removeprefix("\ufeff"), re.IGNORECASE)  # as Excel writes it
    if named is not None and len(texts) > 1:
        sample, texts = sample[1:], texts[1:]
    delimiter = named[1] if named is not None else "\t" if is_tsv else delimiter_of(texts[0])
    quoted = not is_tsv or is_quoted(texts, delimiter)
    table = TableLines(source)
    table.waiting = sample[::-1]
    columns: list[str] | None = None
    for location, row in table_rows(table, name, delimiter, quoted=quoted):
        if isinstance(row, BadRow):
            yield location, row
        elif columns is None:
            columns = named_columns(row, location)
        elif row:
            yield location, record_of(row, columns, location)


def sum_of(sample: list[tuple[int, str | BadRow]]) -> int:
    return sum(len(line) for _, line in sample if isinstance(line, str)) if len(sample) % 50 == 0 else 0


def delimiter_of(header: str) -> str:
    """The one of comma, semicolon, tab and bar that parts the first line into most columns."""
    outside = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=lambda delimiter: (outside.count(delimiter), -DELIMITERS.index(delimiter)))


def is_quoted(texts: list[str], delimiter: str) -> bool:
    """Are quotes in a TSV around fields? Only where a field needs them (a tab, a line break or a doubled quote inside),
    or all fields have them, and none is left open. Else a quote is a character like any other."""
    needed = 0
    try:
        rows = list(csv.reader(texts, delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    if len({len(row) for row in rows if row}) > 1:
        return False
    for row in rows:
        needed += any(delimiter in field or "\n" in field for field in row)
    doubled = any(re.search(r'(?:^|\t)"(?:[^"\t]|"")*""(?:[^"\t]|"")*"(?:\t|\r?\n|$)', text) for text in texts)
    everywhere = all(re.fullmatch(r'"[^"]*"(?:\t"[^"]*")*', text.rstrip("\r\n")) for text in texts)
    return needed > 0 or doubled or everywhere


def table_rows(
    table: TableLines, name: str, delimiter: str, *, quoted: bool
) -> Iterator[tuple[Location, list[str] | BadRow]]:
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    while True:
        reader = csv.reader(table, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            while True:
                table.begin_row()
                row = next(reader)
                yield Location(name, table.taken[-1][0]), row
        except StopIteration:
            return
        except csv.Error as error:
            if table.bad is not None:
                number, bad = table.bad
                if table.taken:
                    yield Location(name, table.first_line), bad_table_row(Location(name, table.first_line), error)
                    table.waiting.append((number, bad))
                    table.hand_back()
                else:
                    yield Location(name, number), bad
            else:
                location = Location(name, table.first_line)
                yield location, bad_table_row(location, error)
                table.hand_back()


def bad_table_row(location: Location, error: csv.Error) -> BadRow:
    return BadRow(
        WRONG, f"{location}: {error}. Put fields with quotes or line breaks in quotes, quotes in them doubled."
    )


def named_columns(row: list[str], location: Location) -> list[str]:
    """The names of the columns. Raises BadInput if the first line names none that is read here."""
    columns = [cell.strip() for cell in row]
    usual = usual_names(frozenset(columns))
    columns = [usual.get(cell, cell) for cell in columns]
    if KNOWN_COLUMNS.isdisjoint(columns) and not any(column.endswith(".responses") for column in columns):
        cells = ", ".join(cell[:40] for cell in columns[:4])
        raise BadInput(
            f"{location}: the first line does not name columns that are read (found: {cells}). "
            "Put a line such as prompt,completion or prompt,chosen,rejected above the rows."
        )
    return [own_name(number, columns, location) for number in range(len(columns))]


def own_name(number: int, columns: list[str], location: Location) -> str:
    """A name for a column that has none, or the one of a column before it. Raises BadInput if it is unclear which of
    two columns is meant."""
    name = columns[number]
    if not name:
        return f"(column {number + 1} without a name)"
    if name not in columns[:number]:
        return name
    if name in NAMES:
        raise BadInput(f"{location}: two columns are named {name[:40]}. Give each column a name of its own.")
    return f"{name} (column {number + 1})"


def record_of(row: list[str], columns: list[str], location: Location) -> Record | BadRow:
    if len(row) > len(columns):
        sentence = (
            f"{location}: more fields than the first line names ({len(columns)}). Quote fields with delimiters in them."
        )
        return BadRow(WRONG, sentence)
    row = row + [""] * (len(columns) - len(row))
    try:
        record = {column: cell_of(column, cell) for column, cell in zip(columns, row, strict=True)}
    except ValueError:
        return BadRow(NO_LIST, f"{location}: {NO_LIST}. Write the table as JSON lines, or its lists as JSON.")
    if OWN_ID.match(str(record.get("id", ""))):
        record = {
            column: without_apostrophe(cell) if isinstance(cell, str) else cell for column, cell in record.items()
        }
    return record


def cell_of(column: str, cell: str) -> object:
    """A cell as text, or as the list that it holds as JSON where its column holds lists."""
    if cell[:3] == "[{'" and column in LISTS | MAY_BE_LISTS:
        return python_list(cell)
    if cell[:1] == "[" and (column in LISTS or (column in MAY_BE_LISTS and cell[:200].lstrip("[ \n").startswith("{"))):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def python_list(cell: str) -> object:
    """A list as Python prints it, which tables have that pandas wrote. Raises ValueError if it is none."""
    try:
        if len(cell) > MAX_PRINTED:
            raise ValueError("too long")
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("a list that is neither JSON nor Python's") from error


def without_apostrophe(cell: str) -> str:
    """Our own exports put one before what a spreadsheet would take for a formula."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in ("=", "+", "-", "@", "\t", "\r") else cell
