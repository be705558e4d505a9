"""Rows as tokens, within a limit: which part of a conversation gives way first, and the count of all that did.

A conversation that is too long loses its oldest exchanges; its system turn stays. If the system turn and the question
still do not fit, the question loses its middle, down to MIN_QUESTION characters. What does not fit then is left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final, NamedTuple

from training.contract import Turn
from training.data.chat_format import ChatFormat, Encoded, Refused

MIN_QUESTION: Final = 64  # characters
GAP: Final = " … "

# What happened to rows, by the name under which result.json counts it; {limit} is the most tokens of a row.
SENTENCES: Final = {
    "left_out/refused": "left out: the model's chat template refuses them",
    "left_out/too_long": "left out: longer than {limit} tokens",
    "left_out/no_reference": "left out: they have no reference or data that a reward could compare replies with",
    "left_out/equal": "left out: their replies are equal in the first {limit} tokens",
    "left_out/empty": "left out: the last reply is empty",
    "left_out/no_weight": "left out: their weight is 0",
    "left_out/only_ties": "left out: they put no reply above another",
    "cut/older_turns": "shortened to {limit} tokens: they lose their oldest turns",
    "cut/question": "shortened to {limit} tokens: their question loses its middle",
    "cut/equal_pairs": "learned without pairs of replies that are equal in the first {limit} tokens",
    "cut/reply": "shortened to {limit} tokens: their reply loses its end",
    "folded/system": "changed: the model's chat template takes no system turn, so it goes before the first user turn",
}  # fmt: skip


class RowCounts:
    """Counts what happened to rows of a kind, and remembers the first row of each case."""

    def __init__(self, noun: str, limit: int) -> None:
        self.what, self.limit = noun, limit
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, case: str, row_id: str, detail: str = "") -> None:
        """`case` is a key of SENTENCES."""
        self.counts[case] += 1
        self.first.setdefault(case, f"{row_id}: {detail}" if detail else row_id)

    @contextmanager
    def leave_out_if_refused(self, row_id: str, times: int = 1) -> Iterator[None]:
        """Ends the block early if the chat template refuses the row, and counts the row as left out."""
        try:
            yield
        except Refused as error:
            for _ in range(times):
                self.add("left_out/refused", row_id, error.reason)

    def add_fitted(self, fitted: Fitted, row_id: str, chat: ChatFormat) -> None:
        """Count what the row's prompt has lost."""
        if chat.folds_system and fitted.messages[0].role == "system":
            self.add("folded/system", row_id)
        if fitted.dropped:
            self.add("cut/older_turns", row_id)
        if fitted.shortened:
            self.add("cut/question", row_id)

    def add_left_out(self, others: RowCounts) -> None:
        """Count what another model could not take of the rows that were left, too."""
        for case, count in others.counts.items():
            if case.startswith("left_out/"):
                self.counts[case] += count
                self.first.setdefault(case, others.first[case])

    @property
    def left_out(self) -> int:
        return sum(count for case, count in self.counts.items() if case.startswith("left_out/"))

    def sentences(self, total: int) -> list[str]:
        """One for each case that occurred; `total` is how many rows there were."""
        return [
            f"{self.counts[case]} of {total} {self.what} are {text.format(limit=self.limit)} "
            f"(the first is {self.first[case]})"
            for case, text in SENTENCES.items()
            if self.counts[case]
        ]

    def named(self, *always: str, prefix: str = "") -> dict[str, int]:
        """The counts by name for result.json; those named in `always` even if they are 0."""
        return {f"{prefix}{case}": self.counts[case] for case in SENTENCES if self.counts[case] or case in always}


class Fitted(NamedTuple):
    """A prompt within the limit."""

    messages: list[Turn]
    ids: list[int]
    dropped: int = 0  # oldest turns that are gone
    shortened: bool = False  # the question has lost its middle


def fit_prompt(chat: ChatFormat, messages: Sequence[Turn], limit: int, ids: list[int] | None = None) -> Fitted | None:
    """The prompt in at most `limit` tokens, or None if it cannot be shortened so far. `ids`, if given, are those of the
    whole prompt. Raises Refused."""
    whole = list(messages)
    ids = chat.prompt(whole) if ids is None else ids
    if len(ids) <= limit:
        return Fitted(whole, ids)
    system, exchanges = exchanges_of(whole)
    skipped = first_that_fits(chat, system, exchanges, limit)
    if skipped < len(exchanges):
        remaining = [*system, *chain.from_iterable(exchanges[skipped:])]
        return Fitted(remaining, chat.prompt(remaining), dropped=len(whole) - len(remaining))
    question = shortened_turns(chat, [*system, *exchanges[-1]], limit)
    if question is None:
        return None
    return Fitted(question, chat.prompt(question), dropped=len(whole) - len(question), shortened=True)


def exchanges_of(messages: list[Turn]) -> tuple[list[Turn], list[list[Turn]]]:
    """The system turn, if there is one, and the rest in parts that each begin with a user turn."""
    system = messages[:1] if messages[0].role == "system" else []
    exchanges: list[list[Turn]] = []
    for turn in messages[len(system) :]:
        if turn.role == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(turn)
    return system, exchanges or [[]]


def first_that_fits(chat: ChatFormat, system: list[Turn], exchanges: list[list[Turn]], limit: int) -> int:
    """How many of the oldest exchanges have to go; all of them if not even the last one fits."""

    def fits(dropped: int) -> bool:
        return len(chat.prompt([*system, *chain.from_iterable(exchanges[dropped:])])) <= limit

    return bisect_left(range(len(exchanges)), True, lo=1, key=fits)


def shortened_turns(chat: ChatFormat, messages: list[Turn], limit: int) -> list[Turn] | None:
    """The messages with as much of their last turn as fits, its beginning and its end; None if that is too little."""
    content = messages[-1].content

    def with_characters(count: int) -> list[Turn]:
        text = content[: count - count // 2] + GAP + content[len(content) - count // 2 :]
        return [*messages[:-1], Turn(role=messages[-1].role, content=text)]

    def too_long(count: int) -> bool:
        return len(chat.prompt(with_characters(count))) > limit

    count = bisect_left(range(len(content)), True, lo=min(MIN_QUESTION, len(content)), key=too_long) - 1
    return with_characters(count) if count >= MIN_QUESTION else None


class FittedExchange(NamedTuple):
    """A prompt and the reply to it within the limit; only the reply is in the mask."""

    encoded: Encoded
    prompt: Fitted
    cut_reply: bool = False  # the reply has lost its end, or the prompt its beginning, for they do not fit otherwise


def fit_exchange(chat: ChatFormat, messages: Sequence[Turn], reply: str, limit: int) -> FittedExchange:
    """Prompt and reply in at most `limit` tokens, whatever it takes. Raises Refused."""
    spoken = chat.reply(reply, list(messages))
    prompt = fit_prompt(chat, messages, limit - len(spoken))
    if prompt is not None:
        mask = [False] * len(prompt.ids) + [True] * len(spoken)
        return FittedExchange(Encoded([*prompt.ids, *spoken], mask), prompt)
    system, exchanges = exchanges_of(list(messages))
    turns = [*system, *exchanges[-1]]
    encoded = chat.exchange(turns, reply, limit)
    return FittedExchange(encoded, Fitted(turns, [], dropped=len(messages) - len(turns)), cut_reply=True)
