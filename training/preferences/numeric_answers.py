"""Finds the number that a text gives as its answer, as GSM8K, MATH and people write it."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final, Literal

MAX_DIGITS: Final = 100  # more than any answer has; longer ones cost time without end
GROUPED: Final = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?"
PLAIN: Final = r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,2})?"
SIGN: Final = r"(?<![\w.)])[-+]?"
NUMBER: Final = re.compile(
    rf"{SIGN}\s?[$€£]?(?:\\[dt]?frac\s*\{{\s*(?P<top>-?\d+)\s*\}}\s*\{{\s*(?P<bottom>\d+)\s*\}}|"
    rf"(?P<number>{GROUPED}(?!\d)|{PLAIN})(?:\s?/\s?(?P<divisor>\d+(?:\.\d+)?)(?![/\d]))?)\s?(?P<percent>\\?%)?"
)
BOXED: Final = re.compile(r"\\boxed\s*\{")
MARK: Final = "####"


def answer_of(text: str, where: Literal["any", "marked", "last"] = "any") -> Fraction | None:
    """The number that `text` answers with: what the last `\\boxed{}` or `####` holds, else the last number in it. With
    "marked" only the first of these, with "last" only the second. None if there is none."""
    marked = None if where == "last" else marked_answer(text)
    if marked is not None:
        return last_number(marked)
    return None if where == "marked" else last_number(text)


def marked_answer(text: str) -> str | None:
    """What the last `\\boxed{}` or `####` holds; None without such a mark."""
    boxed = list(BOXED.finditer(text))
    at = text.rfind(MARK)
    if boxed and boxed[-1].start() > at:
        return braced(text, boxed[-1].end())
    return text[at + len(MARK) :].split("\n", 1)[0] if at >= 0 else None


def braced(text: str, start: int) -> str:
    """The text from `start`, which is behind an opening brace, to the brace that closes it."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start:index]
    return text[start:]


def last_number(text: str) -> Fraction | None:
    """The last number in a text. `1,234`, `-3.5`, `3/4`, `\\frac{3}{4}`, `$12` and `50%` (a half) are read."""
    plain = text.replace("−", "-").replace("{,}", ",").replace("\\,", "").replace("\\!", "").replace("\\$", "$")
    match = None
    for match in NUMBER.finditer(plain):  # noqa: B007 - the last one counts
        pass
    if match is None or len(match[0]) > MAX_DIGITS:
        return None
    return value_of(match)


def value_of(match: re.Match[str]) -> Fraction | None:
    top, bottom = match["top"], match["bottom"]
    if match["number"] is not None:
        top, bottom = match["number"].replace(",", ""), match["divisor"] or "1"
    if Fraction(bottom) == 0:
        return None
    value = Fraction(top) / Fraction(bottom)
    if match[0].lstrip().startswith("-") and not top.startswith("-"):
        value = -value
    return value / 100 if match["percent"] else value


def same_number(answer: Fraction | None, reference: Fraction | None, tolerance: float = 0.0) -> bool:
    """Whether both are numbers and differ by at most `tolerance` of the reference."""
    if answer is None or reference is None:
        return False
    return abs(answer - reference) <= Fraction(tolerance) * abs(reference)
