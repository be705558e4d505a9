"""JSON from outside, read so that everything in it can be stored, sent on and written as JSON again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from training.contract import syntax_problem
from webapp.errors import BadInput
from webapp.params import MAX_BIGINT, is_storable

MAX_DIGITS: Final = len(str(MAX_BIGINT))
MAX_SHOWN: Final = 20
SUSPICIOUS_ESCAPE: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def parse_json(body: bytes) -> Any:
    """The value. Raises BadInput that says where: broken JSON or UTF-8, NaN and Infinity, integers that do not fit 64
    bits, nesting too deep to be read, NUL, and halves of characters."""
    wrong: list[Wrong] = []

    def noted(reason: str) -> Wrong:
        wrong.append(Wrong(reason))
        return wrong[-1]

    def bounded_int(digits: str) -> int | Wrong:
        if len(digits) <= MAX_DIGITS + 1 and -MAX_BIGINT <= (number := int(digits)) <= MAX_BIGINT:
            return number
        return noted(f"{shortened_number(digits)} is too large; give a whole number of at most 64 bits")

    def finite_float(digits: str) -> float | Wrong:
        number = float(digits)
        return (
            number
            if math.isfinite(number)
            else noted(f"{shortened_number(digits)} is too large; give a smaller number")
        )

    def no_number(name: str) -> Wrong:
        return noted(f"{name} is not a number in JSON; give a finite one")

    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=no_number, parse_int=bounded_int, parse_float=finite_float)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"The body is not valid JSON: {syntax_problem(error)}.", code="parse_error") from None
    except RecursionError:
        raise BadInput("The body is nested too deeply.", code="parse_error") from None
    if wrong:
        path = place_where(value, lambda item: item is wrong[0]) or "body"  # the same key may have come again
        raise BadInput(f"{path}: {wrong[0].reason}.", code="parse_error", field=path)
    if SUSPICIOUS_ESCAPE.search(text) and (path := unstorable_place(value)):
        raise BadInput(f"{path}: remove the characters that are not text (NUL or half a character).", field=path)
    return value


@dataclass(frozen=True, eq=False)
class Wrong:
    """Stands in the value where something was that JSON does not have, or that cannot be stored."""

    reason: str


def shortened_number(digits: str) -> str:
    return digits if len(digits) <= MAX_SHOWN else f"{digits[:MAX_SHOWN]}…"


def unstorable_place(value: Any) -> str:
    """Where a text or a key is that cannot be stored, as a dotted path; empty if there is none."""

    def unstorable(item: Any) -> bool:
        return isinstance(item, str) and not is_storable(item)

    return place_where(value, unstorable)


def place_where(value: Any, is_wrong: Callable[[Any], bool]) -> str:
    """The dotted path of an item, or of an object with a key, that `is_wrong`; empty where none is."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, item = waiting.pop()
        if is_wrong(item):
            return path or "body"
        if isinstance(item, list):
            waiting += [(f"{path}.{i}" if path else str(i), element) for i, element in enumerate(item)]
        if isinstance(item, dict):
            if any(is_wrong(key) for key in item):
                return f"{path or 'body'} (a key)"
            waiting += [(f"{path}.{key}" if path else key, element) for key, element in item.items()]
    return ""
