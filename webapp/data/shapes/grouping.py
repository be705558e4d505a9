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

    def add(self, location: P, item: Item | Part) -> Iterator[tuple[P, Item]]:
        if isinstance(item, LeftOut):
            yield location, item
            return
        key = key_of(item)
        limit = MAX_SCORED if isinstance(item, ScoredReply) else MAX_MESSAGES
        if self.parts and (key != self.key or len(self.parts) >= limit):
            yield from self.flush()
        if isinstance(item, ScoredReply | TreeMessage):
            self.key = key
            self.parts.append((location, item))
        else:
            yield location, item

    def flush(self) -> Iterator[tuple[P, Item]]:
        waiting, self.parts, self.key = self.parts, [], None
        if not waiting:
            return
        if isinstance(waiting[0][1], TreeMessage):
            for item in messages_as_tree([waiting_item.record for _, waiting_item in waiting]):
                yield waiting[0][0], item
            return
        by_person: dict[str, list[tuple[P, ScoredReply]]] = {}
        for location, waiting_item in waiting:
            by_person.setdefault(waiting_item.annotator, []).append((location, waiting_item))
        for scored in by_person.values():
            yield from ranked(scored)


def key_of(item: Item | Part) -> Any:
    if isinstance(item, ScoredReply):
        return item.column, item.messages
    return item.tree if isinstance(item, TreeMessage) else None


def ranked(scored: list[tuple[P, ScoredReply]]) -> Iterator[tuple[P, Item]]:
    """A ranking by score of one person's replies to one prompt, the highest first; equal scores tie."""
    (location, scored_first), *others = scored
    if not others:
        reason = f"a reply with a score (“{scored_first.column}”), and no other reply to its prompt beside it"
        yield location, LeftOut(reason)
        return
    fields: dict[str, Any] = {"annotator": scored_first.annotator}
    if any(item.split for _, item in scored):
        fields["split"] = "heldout"
    levels = sorted({item.score for _, item in scored}, reverse=True)
    if scored_first.scale and len(levels) > 1:
        fields["strength"] = min(STRONGEST, STRONGEST * (levels[0] - levels[1]) / scored_first.scale)
    try:
        yield (
            location,
            ranking(scored_first.messages, [p.reply for _, p in scored], [-p.score for _, p in scored], **fields),
        )
    except Skip as skip:
        for at, _ in scored:
            yield at, LeftOut(str(skip))
