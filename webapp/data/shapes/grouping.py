"""What several rows say together: replies to one prompt with a score each, and the messages of one tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from webapp.data.shapes.checks import ranking
from webapp.data.shapes.model import Item, LeftOut, Part, ScoredReply, TreeMessage
from webapp.data.shapes.row import Skip
from webapp.data.shapes.trees import messages_as_tree

MAX_SCORED: Final = 1000
MAX_MESSAGES: Final = 20_000
STRONGEST: Final = 3.0
P = TypeVar("P")


class Grouper(Generic[P]):
    """Takes parts in the order of their rows, each with its place, and gives items. Parts that belong together stand in
    rows next to each other, so that a file of any length needs room for one group only."""

    def __init__(self) -> None:
        self.key: Any = None
        self.parts: list[tuple[P, Any]] = []

    def add(self, place: P, part: Item | Part) -> Iterator[tuple[P, Item]]:
        if isinstance(part, LeftOut):
            yield place, part
            return
        key = key_of(part)
        limit = MAX_SCORED if isinstance(part, ScoredReply) else MAX_MESSAGES
        if self.parts and (key != self.key or len(self.parts) >= limit):
            yield from self.flush()
        if isinstance(part, ScoredReply | TreeMessage):
            self.key = key
            self.parts.append((place, part))
        else:
            yield place, part

    def flush(self) -> Iterator[tuple[P, Item]]:
        parts, self.parts, self.key = self.parts, [], None
        if not parts:
            return
        if isinstance(parts[0][1], TreeMessage):
            for item in messages_as_tree([part.record for _, part in parts]):
                yield parts[0][0], item
            return
        by_person: dict[str, list[tuple[P, ScoredReply]]] = {}
        for place, part in parts:
            by_person.setdefault(part.annotator, []).append((place, part))
        for scored in by_person.values():
            yield from ranked(scored)


def key_of(part: Item | Part) -> Any:
    if isinstance(part, ScoredReply):
        return part.column, part.messages
    return part.tree if isinstance(part, TreeMessage) else None


def ranked(scored: list[tuple[P, ScoredReply]]) -> Iterator[tuple[P, Item]]:
    """A ranking by score of one person's replies to one prompt, the highest first; equal scores tie."""
    (place, first), *others = scored
    if not others:
        reason = f"a reply with a score (“{first.column}”), and no other reply to its prompt beside it"
        yield place, LeftOut(reason)
        return
    fields: dict[str, Any] = {"annotator": first.annotator}
    if any(part.split for _, part in scored):
        fields["split"] = "heldout"
    levels = sorted({part.score for _, part in scored}, reverse=True)
    if first.scale and len(levels) > 1:
        fields["strength"] = min(STRONGEST, STRONGEST * (levels[0] - levels[1]) / first.scale)
    try:
        yield place, ranking(first.messages, [p.reply for _, p in scored], [-p.score for _, p in scored], **fields)
    except Skip as skip:
        for at, _ in scored:
            yield at, LeftOut(str(skip))
