"""A record on its way to an item: which of its columns were read, and what the person should know about it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

Record = dict[str, Any]

ANNOTATORS: Final = dict.fromkeys((
    "annotator", "annotator_id", "worker", "worker_id", "labeler", "labeler_id", "rater", "rater_id", "judge",
    "user_id",
)).keys()  # fmt: skip
SPLITS: Final = frozenset({"split", "heldout", "held_out"})
HELD_OUT: Final = frozenset({"heldout", "held_out", "held-out", "held out"})
TRUE: Final = frozenset(
    {"true", "yes", "y", "good", "1", "1.0", "+1", "up", "thumbs_up", "thumbs up", "positive", "like"}
)
FALSE: Final = frozenset(
    {"false", "no", "n", "bad", "0", "0.0", "-1", "-1.0", "down", "thumbs_down", "thumbs down", "negative", "dislike"}
)
VERDICT_WORDS: Final = (
    "label", "labels", "weight", "score", "scores", "rating", "ratings", "vote", "votes", "rank", "ranks", "ranking",
    "reward", "rewards", "thumb", "thumbs", "preference", "preferred", "winner", "verdict", "judgment", "judgement",
    "feedback", "quality", "upvotes", "downvotes", "likes", "helpfulness", "correctness", "harmlessness", "grade",
    "grades", "stars", "toxicity", "csat", "likert", "points",
)  # fmt: skip
VERDICT: Final = re.compile(
    rf"^(?:.*[_.\- ])?(?:{'|'.join(VERDICT_WORDS)})(?:[_.\- ].*)?$"
    r"|^(?:is_)?(?:good|bad|correct|accepted|rejected|chosen|safe|approved|passed|pass|helpful|harmless|useful|valid|resolved|upvoted|downvoted|better|worse|positive|negative|pos|neg)$",
    re.IGNORECASE,
)


class Skip(Exception):
    """The row is left out; the argument says why."""


class Row:
    """A record whose columns are marked as used when they are read. A column that is null counts as absent."""

    __slots__ = ("names", "nested", "notes", "record", "used")

    def __init__(self, record: Record, names: dict[str, str] | None = None) -> None:
        """`names` are what the file calls columns that have another name here."""
        self.record = record
        self.names = names or {}
        self.used: set[str] = set()
        self.nested: set[str] = set()
        self.notes: list[str] = []

    def has(self, *names: str) -> bool:
        """Are all of them there? Marks nothing."""
        record = self.record
        return all(record.get(name) is not None for name in names)

    def is_text(self, *names: str) -> bool:
        return all(isinstance(self.record.get(name), str) for name in names)

    def is_list(self, name: str) -> bool:
        return isinstance(self.record.get(name), list)

    def is_dict(self, name: str) -> bool:
        return isinstance(self.record.get(name), dict)

    def get(self, name: str) -> Any:
        self.used.add(name)
        return self.record.get(name)

    def peek(self, name: str) -> Any:
        return self.record.get(name)

    def use(self, *names: str) -> None:
        self.used.update(names)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def first(self, names: Iterable[str]) -> str | None:
        """The first of the columns that says something; one that is there and empty, where none does."""
        present = [name for name in names if self.record.get(name) is not None]
        return next((name for name in present if not is_blank(self.record[name])), present[0] if present else None)

    def unused(self) -> Iterator[str]:
        """Columns that say something and were not used, those inside messages too."""
        used = self.used
        for name, value in self.record.items():
            if name not in used and value is not None and not is_blank(value):
                yield str(name)
        yield from self.nested

    def unused_as_named(self) -> Iterator[str]:
        """The same, by the names that they have in the file."""
        yield from (self.names.get(name, name) for name in self.unused())


def is_blank(value: Any) -> bool:
    """Null, an empty list or object, or a text of nothing but space."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, list | dict) and not value)


def is_verdict(column: str) -> bool:
    """Does the column's name say that somebody judged something?"""
    return VERDICT.match(column) is not None


def number(value: Any) -> float | None:
    """A finite number, also from the text of a table's cell; None if it is none (a boolean is none)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    try:
        return float(value) if isinstance(value, int | float | Decimal) and math.isfinite(value) else None
    except OverflowError:
        return None


def binary(value: Any) -> bool | None:
    """Good or bad, in one of the ways people write it; None if it is neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return True if value == 1 else False if value in (0, -1) else None
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in TRUE else False if word in FALSE else None
    return None


def label_fields(row: Row) -> dict[str, Any]:
    """Who gave a label, what it weighs, and whether it is held out, as the columns of these names say."""
    return {**weight_field(row), **annotator_field(row), **split_field(row)}


def weight_field(row: Row) -> dict[str, float]:
    if not row.has("weight") or row.peek("weight") == "":
        return {}
    weight = number(row.get("weight"))
    if weight is None or weight < 0:
        raise Skip("its weight is not a number of 0 or more")
    if weight == 0:
        raise Skip("its weight is 0")
    return {"weight": weight}


def annotator_field(row: Row) -> dict[str, str]:
    if ANNOTATORS.isdisjoint(row.record):
        return {}
    for name in ANNOTATORS:
        value = row.peek(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            row.use(name)
            return {"annotator": str(value)[:200]}
    return {}


def split_field(row: Row) -> dict[str, str]:
    if SPLITS.isdisjoint(row.record):
        return {}
    split = row.peek("split")
    if isinstance(split, str) and split.strip().lower() in HELD_OUT:
        row.use("split")
        return {"split": "heldout"}
    for name in ("heldout", "held_out"):
        if row.has(name) and binary(row.peek(name)):
            row.use(name)
            return {"split": "heldout"}
    return {}
