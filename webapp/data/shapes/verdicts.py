"""What else a row says of a demonstration or a prompt, that keeps it from being taken for one: verdicts that nothing
here has read, replies and context beside it that nothing has used."""

from __future__ import annotations

import re
from typing import Any, Final

from webapp.data.shapes.model import DemonstrationItem, Item, Part, PromptItem
from webapp.data.shapes.prompts import CHOICE_COLUMNS, CHOICES
from webapp.data.shapes.row import Row, binary, is_blank, is_verdict, number

REPLY_COLUMN: Final = re.compile(
    r"^(?:.*[_\- ])?(?:response|reply|completion|generation|output)s?(?:[_\- ]?(?:\d+|[a-z]))?$|^content$",
    re.IGNORECASE,
)
SIDES: Final = (
    "chosen", "rejected", "winner", "preferred", "better", "worse", "positive", "negative", "pos", "neg", "good", "bad",
)  # fmt: skip
FAULTS: Final = (
    "toxic", "is_toxic", "harmful", "is_harmful", "unsafe", "is_unsafe", "flagged", "is_bad", "hallucination",
    "hallucinated", "deleted", "is_deleted",
)  # fmt: skip
FAULTY: Final = frozenset(
    {"rejected", "discarded", "deleted", "withdrawn", "fail", "failed", "bad", "incorrect", "wrong"}
)
NOT_LEARNED: Final = ("train", "trainable", "training")
JUDGED_WITHIN: Final = ("annotations", "annotation", "evaluation", "evaluations", "review", "reviews", "judgments")
CONTEXT: Final = ("contexts", "documents", "passages", "knowledge", "evidence", "persona", "personas", "previous_turns")
ASKING: Final = ("instruction", "prompt", "question", "query", "problem")


def problem_with(item: Item | Part, row: Row) -> str:
    """Why a demonstration or a prompt is not taken for what else its row says; empty if it is."""
    if not isinstance(item, DemonstrationItem | PromptItem):
        return ""
    unused = list(row.unused())
    column = unknown_verdict(item, row, unused)
    if column is not None:
        is_empty = column in row.record and is_blank(row.peek(column))
        return f"its “{column}” is empty" if is_empty else f"“{column}” judges it, in a way that is not known"
    return (what_is_wrong(row, unused) if isinstance(item, DemonstrationItem) else reply_beside(row, unused)) or (
        context_beside(item, row, unused)
    )


def unknown_verdict(item: Item | Part, row: Row, unused: list[str]) -> str | None:
    """A column that judges it, in a way that nothing here has read."""
    if isinstance(item, DemonstrationItem):
        empty = (name for name in ("label", "kto_tag") if name in row.record and is_blank(row.peek(name)))
        judged = (name for name in unused if is_verdict(name) or is_judged_within(name, row))
        return next(empty, None) or next(judged, None)
    return next((name for name in unused if is_verdict(name) and judges_prompt(name, row)), None)


def is_judged_within(column: str, row: Row) -> bool:
    """Does a list of what people said about it hold a score or the like?"""
    if column not in JUDGED_WITHIN:
        return False
    value = row.peek(column)
    values = value if isinstance(value, list) else [value]
    return any(is_verdict(str(key)) for judgment in values if isinstance(judgment, dict) for key in judgment)


def judges_prompt(column: str, row: Row) -> bool:
    """Does the column judge something that was there beside the prompt? A word may name the kind of the prompt, and a
    label the right one of its choices."""
    choices = (*CHOICES, *(names[0] for names in CHOICE_COLUMNS))
    if column in ("label", "labels") and not row.used.isdisjoint(choices):
        return False
    value: Any = row.peek(column)
    if isinstance(value, dict):
        value = list(value.values())
    judged = any(
        isinstance(element, bool) or number(element) is not None or binary(element) is not None
        for element in (value if isinstance(value, list) else [value])
    )
    return judged or column in SIDES or column.lower().startswith("rank_")


def what_is_wrong(row: Row, unused: list[str]) -> str:
    for name in unused:
        value = row.peek(name)
        if (name in FAULTS and value is True) or (isinstance(value, str) and value.strip().lower() in FAULTY):
            return f"“{name}” says that something is wrong with it"
        if name in NOT_LEARNED and value is False:
            return f"“{name}” says that it is not to be learned"
    return ""


def reply_beside(row: Row, unused: list[str]) -> str:
    for name in unused:
        if REPLY_COLUMN.match(name) and not isinstance(row.peek(name), dict | list):
            return f"“{name}” looks like a reply, and what it is worth is not known"
    return ""


def context_beside(item: DemonstrationItem | PromptItem, row: Row, unused: list[str]) -> str:
    for name in unused:
        if name in CONTEXT:
            return f"“{name}” looks like context, which is not read from there"
    if row.used.isdisjoint(ASKING):
        return ""
    for name in unused:
        if name in ASKING and row.is_text(name) and not any(row.peek(name) in m["content"] for m in item.messages):
            return f"“{name}” asks something, too"
    return ""
