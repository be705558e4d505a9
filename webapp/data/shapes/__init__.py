"""The shapes in which preference data, demonstrations, prompts and text come, brought to ours.

One module a family; each says at its top which shapes it reads and where they are described. docs/imports.md lists them
for users. A row is read as what it is or left out with the reason; what it holds is never changed on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from webapp.data.shapes.answers import with_answer
from webapp.data.shapes.checks import BROKEN, is_broken, prompt
from webapp.data.shapes.grouping import Grouper
from webapp.data.shapes.model import (
    DemonstrationItem,
    DocumentItem,
    Item,
    JudgmentItem,
    Kind,
    LeftOut,
    Messages,
    Part,
    PromptItem,
    RankingItem,
    UnknownShape,
)
from webapp.data.shapes.registry import KNOWN_COLUMNS, row_of, shape_of
from webapp.data.shapes.row import Row, Skip
from webapp.data.shapes.turns import is_transcript, parse_transcript
from webapp.data.shapes.verdicts import problem_with

__all__ = [
    "KNOWN_COLUMNS", "DemonstrationItem", "DocumentItem", "Grouper", "Item", "JudgmentItem", "Kind", "LeftOut",
    "Messages", "Part",
    "PromptItem", "RankingItem", "UnknownShape", "items", "parts_of",
]  # fmt: skip
NUL: Final = "NUL characters were taken out, which the database cannot hold"


def items(record: dict[str, Any] | str) -> Iterator[Item]:
    """What a record holds, taken by itself. Raises UnknownShape, saying what keys it found."""
    grouper: Grouper[None] = Grouper()
    for shaped in parts_of(record)[0]:
        yield from (item for _, item in grouper.add(None, shaped))
    yield from (item for _, item in grouper.flush())


def parts_of(record: dict[str, Any] | str) -> tuple[list[Item | Part], Row]:
    """What a record holds, and which columns that took. Raises UnknownShape."""
    row = row_of(record) if isinstance(record, dict) else Row({})
    shaped: list[Item | Part] = []
    try:
        if isinstance(record, str):
            shaped.append(prompt(bare_messages(record)))
        else:
            shape = shape_of(row)
            if shape is None:
                keys = ", ".join(sorted(str(key)[:40] for key in record)[:8]) or "no keys"
                raise UnknownShape(f"cannot tell what this record is (found: {keys})")
            for item in shape.read(row):  # one by one: those before a Skip are kept
                shaped.append(item)  # noqa: PERF402
    except Skip as skip:
        shaped.append(LeftOut(str(skip)))
    return [finished(answered(item, row), row) for item in shaped], row


def answered(item: Item | Part, row: Row) -> Item | Part:
    """A prompt with its row's reference and data; other items as they are."""
    try:
        return with_answer(item, row) if isinstance(item, PromptItem) else item
    except Skip as skip:
        return LeftOut(str(skip))


def bare_messages(text: str) -> Messages:
    return parse_transcript(text) if is_transcript(text) else [{"role": "user", "content": text}]


def finished(item: Item | Part, row: Row) -> Item | Part:
    """The part as it is taken: without NUL characters, and not at all where it is judged in an unknown way."""
    if problem := problem_with(item, row):
        return LeftOut(problem)
    if is_broken(getattr(item, "annotator", ""), getattr(item, "reason", "")):
        return LeftOut(BROKEN)
    texts = [*(m["content"] for m in getattr(item, "messages", ())), getattr(item, "text", "")]
    texts.append(json.dumps([getattr(item, "reference", None), getattr(item, "data", None)]).replace("\\u0000", "\0"))
    texts += [getattr(item, "reply", ""), *getattr(item, "replies", ()), getattr(item, "annotator", "")]
    if not any("\0" in text for text in texts) or isinstance(item, LeftOut):
        return item
    row.note(NUL)
    changed = {
        name: without_nul(getattr(item, name))
        for name in ("messages", "text", "reply", "replies", "annotator", "reference", "data")
        if hasattr(item, name)
    }
    return replace(item, **changed)


def without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [without_nul(element) for element in value]
    if isinstance(value, dict):
        return {name: without_nul(element) for name, element in value.items()}
    return value
