"""Two people who edit one text: the second to save gets a notice and sees both texts side by side."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any, Final, NamedTuple

from webapp.errors import Conflict

MAX_COMPARED: Final = 4000  # lines; comparing takes time that grows with their square


class EditConflict(Conflict):
    """What is to be saved began from values that somebody else has changed since. Nothing was saved.

    Attributes:
        saved: the values that stand now, by field.
    """

    code = "edit_conflict"

    def __init__(self, saved: Mapping[str, Any]) -> None:
        names = ", ".join(name.replace("_", " ") for name in saved)
        super().__init__(f"Somebody else changed {names} while you were editing. Your changes are not saved yet.")
        self.saved = dict(saved)


class DiffLine(NamedTuple):
    """`origin` is "both", "saved" or "yours"."""

    origin: str
    text: str


def compare_lines(saved: str, yours: str) -> list[DiffLine]:
    """Both texts line by line, in one column."""
    before, after = as_lines(saved), as_lines(yours)
    if len(before) + len(after) > MAX_COMPARED:
        return [*(DiffLine("saved", text) for text in before), *(DiffLine("yours", text) for text in after)]
    lines = []
    for operation, a, b, c, d in SequenceMatcher(None, before, after).get_opcodes():
        if operation == "equal":
            lines += [DiffLine("both", text) for text in before[a:b]]
        else:
            lines += [DiffLine("saved", text) for text in before[a:b]]
            lines += [DiffLine("yours", text) for text in after[c:d]]
    return lines


def as_lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").strip().split("\n")


def same_value(before: Any, after: Any) -> bool:
    """Whether two values of a field are equal; texts but for the form of their line ends."""
    if isinstance(before, str) and isinstance(after, str):
        return as_lines(before) == as_lines(after)
    return bool(before == after)
