"""Reading the parameters of an address or a form as what they are. Whatever else comes is a BadInput that names them.

    before = read_int(request.GET, "before")                        # int or None
    state = read_choice(request.GET, "state", Run.State.values)      # one of them, or ""
    search = read_text(request.GET, "q")                             # text that the database can hold

An absent or empty parameter is its default. Numbers are ASCII digits and fit a bigint, so `²`, five thousand digits and
2**64 never reach `int` or a query.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final, overload

from django.http import QueryDict

from webapp.errors import BadInput

MAX_BIGINT: Final = 2**63 - 1
MAX_TEXT: Final = 1000
MAX_VALUES: Final = 1000
INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
Given = Mapping[str, Any]


def parse_int(value: str, *, low: int = 0, high: int = MAX_BIGINT) -> int | None:
    """The number between `low` and `high` that the text is, or None."""
    text = value.strip()
    if not INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if low <= number <= high else None


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold it: no NUL, and no lone surrogate, which UTF-8 does not have."""
    return UNSTORABLE.search(text) is None


@overload
def read_int(query: Given, name: str, default: int, *, low: int = 0, high: int = MAX_BIGINT) -> int: ...
@overload
def read_int(query: Given, name: str, default: None = None, *, low: int = 0, high: int = MAX_BIGINT) -> int | None: ...
def read_int(
    query: Given, name: str, default: int | None = None, *, low: int = 0, high: int = MAX_BIGINT
) -> int | None:
    value = query.get(name, "")
    if value == "":
        return default
    number = parse_int(value, low=low, high=high)
    if number is None:
        limits = f"from {low:,} on" if high == MAX_BIGINT else f"from {low:,} to {high:,}"
        raise BadInput(f"{name}: give a whole number {limits}.", field=name)
    return number


def read_ints(query: QueryDict, name: str, *, at_most: int = MAX_VALUES, low: int = 0) -> list[int]:
    """Every value of a parameter that may be repeated, in order."""
    values = query.getlist(name)
    if len(values) > at_most:
        raise BadInput(f"{name}: give at most {at_most:,} of them.", field=name)
    numbers = [parse_int(value, low=low) for value in values]
    if None in numbers:
        raise BadInput(f"{name}: give whole numbers from {low:,} on.", field=name)
    return [number for number in numbers if number is not None]


def read_choice(query: Given, name: str, choices: Iterable[str], default: str = "") -> str:
    value = str(query.get(name, "") or default)
    options = list(choices)
    if value != default and value not in options:
        raise BadInput(f"{name}: choose one of {', '.join(options)}.", field=name)
    return value


def read_text(query: Given, name: str, default: str = "", *, longest: int = MAX_TEXT) -> str:
    value = str(query.get(name, default))
    if len(value) > longest:
        raise BadInput(f"{name}: use at most {longest:,} characters.", field=name)
    if not is_storable(value):
        raise BadInput(f"{name}: remove the characters that are not text (NUL or half a character).", field=name)
    return value


def read_uuid(query: Given, name: str) -> uuid.UUID | None:
    value = str(query.get(name, ""))
    if not value:
        return None
    try:
        return uuid.UUID(value)
    except ValueError:
        raise BadInput(f"{name}: this is not an id.", field=name) from None
