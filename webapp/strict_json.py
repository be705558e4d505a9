"""JSON from outside, read so that everything in it can be stored, sent on and written as JSON again."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from webapp.errors import BadInput
from webapp.params import MAX_BIGINT, is_storable

MAX_DIGITS: Final = len(str(MAX_BIGINT))
SUSPICIOUS_ESCAPE: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def parse_json(body: bytes) -> Any:
    """The value. Raises BadInput that says where: broken JSON or UTF-8, NaN and Infinity, integers that do not fit 64
    bits, nesting too deep to be read, NUL, and halves of characters."""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=refuse_constant, parse_int=bounded_int, parse_float=finite_float)
    except UnicodeDecodeError as error:
        raise BadInput(f"The body is not UTF-8 (byte {error.start:,}).", code="parse_error") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise BadInput(f"The body is not valid JSON ({place}: {error.msg}).", code="parse_error") from None
    except RecursionError:
        raise BadInput("The body is nested too deep to be read.", code="parse_error") from None
    if SUSPICIOUS_ESCAPE.search(text) and (place := unstorable_place(value)):
        raise BadInput(f"{place}: remove the characters that are not text (NUL or half a character).", field=place)
    return value


def refuse_constant(name: str) -> Any:
    raise BadInput(f"The body is not valid JSON: {name} is not a number in JSON.", code="parse_error")


def bounded_int(digits: str) -> int:
    if len(digits) <= MAX_DIGITS + 1 and -MAX_BIGINT <= (number := int(digits)) <= MAX_BIGINT:
        return number
    raise BadInput(f"The body holds an integer that is too large ({digits[:20]}…).", code="parse_error")


def finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise BadInput(f"The body holds a number that is too large ({digits[:20]}).", code="parse_error")
    return number


def unstorable_place(value: Any) -> str:
    """Where a text or a key is that cannot be stored, as a dotted path; empty where there is none."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        place, item = waiting.pop()
        if isinstance(item, str) and not is_storable(item):
            return place or "body"
        if isinstance(item, list):
            waiting += [(f"{place}.{i}" if place else str(i), part) for i, part in enumerate(item)]
        if isinstance(item, dict):
            if not all(is_storable(key) for key in item):
                return f"{place or 'body'} (a key)"
            waiting += [(f"{place}.{key}" if place else key, part) for key, part in item.items()]
    return ""
