"""What a row of a file can be, once it is read. `created_at` is an ISO time with its zone; empty: when it comes in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Messages = list[dict[str, str]]
Kind = Literal["text", "prompts", "demonstrations", "rankings", "judgments"]


@dataclass(frozen=True)
class DocumentItem:
    """`corpus` is the corpus that the file names, with its license; empty: the person who imports decides."""

    text: str
    format: str = "text"
    corpus: str = ""
    licence: str = ""


@dataclass(frozen=True)
class PromptItem:
    """`split` is "heldout" where the file says that nothing may learn from the row; empty: the project decides.
    `reference` is the right answer, `data` what else rewards need to check a reply."""

    messages: Messages
    split: str = ""
    reference: Any = None
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class DemonstrationItem:
    """`messages` ends with the user's turn that `reply` answers. `masked_turns` are indices of assistant messages that
    are context only. `unanswered` holds turns after the reply to which nothing answers; they are not learned."""

    messages: Messages
    reply: str
    masked_turns: list[int] = field(default_factory=list)
    weight: float = 1.0
    annotator: str = ""
    split: str = ""
    created_at: str = ""
    active_seconds: float = 0.0
    unanswered: Messages = field(default_factory=list)


@dataclass(frozen=True)
class RankingItem:
    """`groups` holds indices into `replies`, best group first; ratings and flags are by the same indices. `strength` is
    how much better the best is, 0 to 3; None if the file does not say it on a known scale."""

    messages: Messages
    replies: list[str]
    groups: list[list[int]]
    strength: float | None = None
    annotator: str = ""
    weight: float = 1.0
    split: str = ""
    created_at: str = ""
    active_seconds: float = 0.0
    ratings: dict[int, int] = field(default_factory=dict)
    flags: dict[int, list[str]] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class JudgmentItem:
    """One reply, called good or bad."""

    messages: Messages
    reply: str
    good: bool
    weight: float = 1.0
    annotator: str = ""
    split: str = ""
    created_at: str = ""
    active_seconds: float = 0.0


@dataclass(frozen=True)
class LeftOut:
    """A record, or part of one, that is not taken, and why."""

    reason: str


@dataclass(frozen=True)
class ScoredReply:
    """One reply with a score. It says something only beside other scores for the same prompt, which stand in the rows
    next to it. `scale` is the distance between the lowest and the highest score that can be given; 0: not known."""

    messages: Messages
    reply: str
    score: float
    column: str
    scale: float = 0.0
    annotator: str = ""
    split: str = ""


@dataclass(frozen=True)
class TreeMessage:
    """One message of an Open-Assistant tree whose messages stand in rows of their own."""

    tree: str
    record: dict[str, Any]


Label = DemonstrationItem | RankingItem | JudgmentItem
Item = DocumentItem | PromptItem | Label | LeftOut
Part = ScoredReply | TreeMessage


class UnknownShape(ValueError):
    """The record is of none of the shapes."""
