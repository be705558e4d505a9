"""JSON lines and JSON lists, record by record."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from webapp.data.decoding import TOO_LONG, OnNote, chunks, lines
from webapp.data.locations import MAX_DEPTH, MAX_RECORD, BadRow, Location, Record
from webapp.data.shapes.registry import KNOWN_COLUMNS
from webapp.errors import BadInput

INVALID: Final = "not valid JSON"
NO_RECORD: Final = "neither an object nor a string"
TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"
MAX_DIGITS: Final = 400  # of an integer; longer ones are kept as text
WRAPPERS: Final = (
    "data",
    "rows",
    "records",
    "items",
    "examples",
    "train",
    "entries",
    "test",
    "validation",
    "valid",
    "dev",
)
SPACE: Final = re.compile(r"[ \t\r\n]*")
NUMBER_CHARACTERS: Final = frozenset("0123456789+-.eEaflnrstuINy")


class Unreadable(ValueError):
    """Text that is no JSON we read; `at` is the character where it shows."""

    def __init__(self, reason: str, sentence: str, at: int = 0) -> None:
        super().__init__(sentence)
        self.reason, self.sentence, self.at = reason, sentence, at


def whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


PLAIN: Final = json.JSONDecoder()
WITH_HUGE_NUMBERS: Final = json.JSONDecoder(parse_int=whole_number)


def parse_value(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins there, and where it ends. Raises Unreadable."""
    try:
        try:
            value, end = PLAIN.raw_decode(text, start)
        except json.JSONDecodeError:
            raise
        except ValueError:  # an integer longer than Python converts
            value, end = WITH_HUGE_NUMBERS.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise Unreadable(INVALID, f"{INVALID}: {error.msg} at column {error.colno}", error.pos) from error
    except RecursionError as error:
        raise Unreadable(TOO_DEEP, TOO_DEEP, start) from error
    if text.count("[", start, end) + text.count("{", start, end) > MAX_DEPTH and is_deep(value):
        raise Unreadable(TOO_DEEP, TOO_DEEP, start)
    return value, end


def is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        if not level:
            return False
    return True


def as_record(value: Any, location: Location) -> Record | BadRow:
    if isinstance(value, dict) and isinstance(value.get("row"), dict) and "row_idx" in value:  # the hub's rows API
        return dict(value["row"])
    if isinstance(value, dict | str):
        return value
    return BadRow(NO_RECORD, f"{location}: expected an object or a string, found {type(value).__name__}.")


# ---------------------------------------------------------------------------------------------------------- JSON lines


def read_json_lines(
    stream: io.BufferedReader, name: str, on_note: OnNote
) -> Iterator[tuple[Location, Record | BadRow]]:
    for number, line in lines(stream, name, on_note):
        location = Location(name, number)
        if isinstance(line, BadRow):
            yield location, line
        elif line and not line.isspace():
            yield location, parse_line(line.strip(" \t\r\n"), location)


def parse_line(line: str, location: Location) -> Record | BadRow:
    """One record; a comma after it, as lists have them, is passed over."""
    try:
        value, end = parse_value(line)
        tail = line[end:].strip()
        if tail not in ("", ","):
            raise Unreadable(INVALID, f"{INVALID}: more than one value, at column {end + 1}", end)
    except Unreadable as error:
        return BadRow(error.reason, f"{location}: {error.sentence}.")
    return as_record(value, location)


# ---------------------------------------------------------------------------------------------------------- JSON lists


def read_json(stream: io.BufferedReader, name: str, on_note: OnNote) -> Iterator[tuple[Location, Record | BadRow]]:
    """A list of records, an object with one such list in it, a single record, or several records one after another.
    Places count the records."""
    for number, value in enumerate(values_of(Source(chunks(stream, name, on_note), name)), 1):
        location = Location(name, number)
        yield location, as_record(value, location)


class Source:
    """The text of a file, as much of it at a time as the value in hand needs."""

    def __init__(self, texts: Iterator[str], name: str) -> None:
        self.pieces, self.name = texts, name
        self.text, self.at, self.line = "", 0, 1
        self.ended = False

    def more(self, characters: int = 1) -> bool:
        """Read on, by at least as many characters as there are; False at the end."""
        fresh: list[str] = []
        count = 0
        while count < characters and not self.ended:
            text = next(self.pieces, None)
            if text is None:
                self.ended = True
            else:
                fresh.append(text)
                count += len(text)
        if not count:
            return False
        self.line += self.text.count("\n", 0, self.at)
        self.text, self.at = self.text[self.at :] + "".join(fresh), 0
        return True

    def next_character(self) -> str:
        """The next one that is no space, without taking it; empty at the end."""
        while True:
            space = SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, expected: str) -> None:
        character = self.next_character()
        if character != expected:
            self.fail(f"{INVALID}: expected {expected!r}, found {character or 'the end'!r}")
        self.at += 1

    def value(self) -> Any:
        """The value that begins here."""
        self.next_character()
        while True:
            try:
                value, end = parse_value(self.text, self.at)
            except Unreadable as error:
                if error.reason == TOO_DEEP:
                    self.fail(error.sentence)
                if not self.read_on():
                    self.fail(f"{INVALID}: {error.sentence.partition(': ')[2] or error.sentence}", error.at)
                continue
            if end < len(self.text) or self.text[end - 1] not in NUMBER_CHARACTERS or not self.more():
                self.at = end
                return value

    def read_on(self) -> bool:
        waiting = len(self.text) - self.at
        if waiting > MAX_RECORD:
            self.fail(f"a value {TOO_LONG}, or {INVALID}")
        return self.more(max(1, waiting))

    def fail(self, sentence: str, at: int | None = None) -> None:
        line = self.line + self.text.count("\n", 0, self.at if at is None else at)
        raise BadInput(f"{self.name}:{line}: {sentence}.")


def values_of(source: Source) -> Iterator[Any]:
    while opening := source.next_character():
        if opening == "[":
            yield from list_values(source)
        elif opening == "{":
            yield from object_values(source)
        else:
            yield source.value()
        if source.next_character() == ",":  # between records that stand one after another
            source.at += 1


def list_values(source: Source) -> Iterator[Any]:
    source.take("[")
    if source.next_character() == "]":
        source.at += 1
        return
    while True:
        yield source.value()
        if source.next_character() != ",":
            source.take("]")
            return
        source.at += 1


def object_values(source: Source) -> Iterator[Any]:
    """A record, or the records of a list that stands in an object under a usual name, or alone beside plain values."""
    source.take("{")
    whole: dict[str, Any] = {}
    streamed = False
    while source.next_character() == '"':
        key = source.value()
        source.take(":")
        is_wrapper = key in WRAPPERS and source.next_character() == "[" and KNOWN_COLUMNS.isdisjoint(whole)
        if is_wrapper and is_list_of_records(source):
            streamed = True
            yield from list_values(source)
        else:
            whole[key] = source.value()
        if source.next_character() == ",":
            source.at += 1
    source.take("}")
    if not streamed:
        yield from unwrapped(whole)


def is_list_of_records(source: Source) -> bool:
    """Does the list that begins here begin with an object?"""
    while not re.match(r"\[\s*\S", source.text[source.at :][:1000]):
        if not source.more():
            return False
    return re.match(r"\[\s*\{", source.text[source.at :][:1000]) is not None


def table_rows(whole: dict[str, Any]) -> Iterator[Record] | None:
    """The rows of a table as pandas writes it: {columns, index, data} ("split"), or {column: {"0": …}} ("columns")."""
    columns, data = whole.get("columns"), whole.get("data")
    if isinstance(columns, list) and isinstance(data, list) and whole.keys() <= {"columns", "index", "data"}:
        if all(isinstance(row, list) and len(row) == len(columns) for row in data) and len(columns) == len(
            {str(name) for name in columns}
        ):
            return ({str(name): cell for name, cell in zip(columns, row, strict=True)} for row in data)
        return None
    cells = list(whole.values())
    if len(cells) < 2 or not all(isinstance(column, dict) and column.keys() == cells[0].keys() for column in cells):
        return None
    if not cells[0] or not all(key.isdecimal() for key in cells[0]):
        return None
    return ({name: column[key] for name, column in whole.items()} for key in cells[0])


def unwrapped(whole: dict[str, Any]) -> Iterator[Any]:
    lists = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    plain = all(not isinstance(value, dict | list) for value in whole.values() if value not in lists)
    table = table_rows(whole)
    if table is not None:
        yield from table
        return
    named = {"messages", "conversations", "conversation", "segments", "turns", "utterances"} & whole.keys()
    if len(lists) == 1 and len(whole) == 1 and plain and not named:
        yield from lists[0]
    else:
        yield whole
