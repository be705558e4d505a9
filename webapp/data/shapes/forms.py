"""Answers to the questions of a labeling form, whatever tool asked them: which become labels, and which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from webapp.data.shapes.checks import demonstration, judgment, ranking
from webapp.data.shapes.model import Item, LeftOut, Messages, Part, ScoredReply
from webapp.data.shapes.row import Skip, binary, number
from webapp.data.shapes.two_replies import FIRST, SECOND, TIE, Vote, by_name, voted

REPLY_NAME: Final = re.compile(
    r"^(?:.*[_\- ])?(?:response|reply|answer|completion|generation|output|summary|text)s?[_\- ]?(?:\d+|[a-z])?$",
    re.IGNORECASE,
)
WRITTEN_NAME: Final = re.compile(r"response|reply|answer|completion|correct|rewrite|edit|demonstration", re.IGNORECASE)
ASKED_NAMES: Final = (
    "instruction", "prompt", "question", "query", "input", "conversation", "messages", "chat",
    "dialogue", "dialog",
)  # fmt: skip


@dataclass
class Sheet:
    """What was shown: the conversation, and the replies by the names that answers call them by."""

    messages: Messages
    replies: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        return list(self.replies.values())


def ranked_names(sheet: Sheet, order: list[tuple[float, str]], **fields: Any) -> Item:
    """A ranking from ranks and names of replies."""
    if {name for _, name in order} != set(sheet.replies) or len(order) != len(sheet.replies):
        raise Skip("a ranking does not name each of the replies once")
    ranks = {name: rank for rank, name in order}
    return ranking(sheet.messages, sheet.texts, [ranks[name] for name in sheet.replies], **fields)


def chosen(sheet: Sheet, answer: Any, question: str, **fields: Any) -> Iterator[Item | Part]:
    """One answer of a choice: which of the replies is best, or whether the single reply is good."""
    names = list(sheet.replies)
    if len(names) == 1 and (good := binary(answer)) is not None:
        yield judgment(sheet.messages, sheet.texts[0], good, **fields)
        return
    if len(names) == 2:
        winner = by_name(answer, (names[0], names[1])) or by_place(answer)
        if winner is not None:
            yield from voted(sheet.messages, sheet.texts, [Vote(winner)], **fields)
            return
    elif len(names) > 2 and isinstance(answer, str) and answer in names:
        ranks = [1.0 if name == answer else 2.0 for name in names]
        yield ranking(sheet.messages, sheet.texts, ranks, **fields)
        return
    yield LeftOut(f"an answer to “{question[:40]}” that is no verdict which is known")


def by_place(answer: Any) -> str | None:
    """1, 2 or 0 for a tie, as forms of two replies have them: Response 1, #2."""
    match = re.fullmatch(r"(?:response|answer|reply|output|#)?[ _\-]?([12])", str(answer).strip().lower())
    if match:
        return FIRST if match[1] == "1" else SECOND
    return TIE if str(answer).strip().lower() in ("equal", "tie", "no preference") else None


def rated(sheet: Sheet, answer: Any, question: str, annotator: str) -> Iterator[Item | Part]:
    """A number on the single reply: it says something beside other ratings of the same prompt only."""
    score = number(answer)
    if score is None or len(sheet.replies) != 1:
        yield LeftOut(f"a rating (“{question[:40]}”) that belongs to no single reply")
        return
    yield ScoredReply(sheet.messages, sheet.texts[0], score, question, annotator=annotator)


def written(sheet: Sheet, answer: Any, question: str, **fields: Any) -> Iterator[Item]:
    """A text that a person wrote: a demonstration where the question asks for a reply, else a remark."""
    if not isinstance(answer, str) or not answer.strip():
        return
    if sheet.replies and not re.search(r"correct|rewrite|edit|improve|better|demonstration", question, re.IGNORECASE):
        yield LeftOut(f"a text (“{question[:40]}”) that is a remark on the replies")
    elif WRITTEN_NAME.search(question) or not sheet.replies:
        yield demonstration(sheet.messages, answer, **fields)
