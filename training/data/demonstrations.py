"""Demonstrations as what a policy learns from: token ids within the limit, the targets in them, their weights."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch

from training.contract import DemonstrationRow
from training.data.batching import Examples, Rows, Sizes
from training.data.chat_format import ChatFormat, Encoded
from training.data.fitting import Fitted, FittedExchange, RowCounts, exchanges_of, fit_exchange
from training.data.packing import TextBatch, text_batch

WeightedExample = tuple[Encoded, float]


class EncodedDemonstrations(NamedTuple):
    rows: list[DemonstrationRow]  # that can be learned from
    examples: list[WeightedExample]  # their tokens with their weights
    by_turn: int  # rows of several examples, one for each turn of the assistant
    counts: RowCounts  # of those that cannot, and of what the others lose


def encode_demonstrations(chat: ChatFormat, rows: Sequence[DemonstrationRow], limit: int) -> EncodedDemonstrations:
    """Every example has at most `limit` tokens. A token weighs as much as its row whether the row is one example or
    several."""
    counts = RowCounts("demonstrations", limit)
    kept_rows: list[DemonstrationRow] = []
    encoded: list[WeightedExample] = []
    by_turn = 0
    for row in rows:
        lessons = encode_demonstration(chat, row, limit, counts)
        if lessons:
            kept_rows.append(row)
            by_turn += len(lessons) > 1
            encoded += [(lesson, row.weight) for lesson in lessons]
    return EncodedDemonstrations(kept_rows, encoded, by_turn, counts)


def encode_demonstration(chat: ChatFormat, row: DemonstrationRow, limit: int, counts: RowCounts) -> list[Encoded]:
    """What is learned from the row, nothing if it is left out; what happens to it is counted."""
    if row.weight == 0:
        counts.add("left_out/no_weight", row.id)
        return []
    with counts.leave_out_if_refused(row.id):
        lessons = chat.lessons(row.messages, row.masked_turns)
        if not row.messages[-1].content.strip() or not any(lessons[-1][1].mask):
            counts.add("left_out/empty", row.id)
            return []
        fit = fit_conversation if len(lessons) == 1 else fit_lesson
        fitted = [fit(chat, row, end, lesson, limit) for end, lesson in lessons]
        if fitted[-1] is None:
            counts.add("left_out/too_long", row.id)
            return []
        counts.add_fitted(fitted[-1].prompt, row.id, chat)
        return [lesson.encoded for lesson in fitted if lesson is not None]
    return []


def fit_conversation(
    chat: ChatFormat, row: DemonstrationRow, end: int, lesson: Encoded, limit: int
) -> FittedExchange | None:
    """The row as one lesson of at most `limit` tokens: without its oldest exchanges, or its last reply alone. None if
    that is too long for its question."""
    messages = row.messages[:end]
    system, exchanges = exchanges_of(messages)

    def without(dropped: int) -> Encoded:
        remaining = [*system, *chain.from_iterable(exchanges[dropped:])]
        gone = len(messages) - len(remaining)
        return chat.conversation(remaining, [i - gone for i in row.masked_turns])

    if len(lesson.ids) > limit:
        dropped = bisect_left(range(len(exchanges)), True, lo=1, key=lambda n: len(without(n).ids) <= limit)
        if dropped < len(exchanges):
            gone = sum(map(len, exchanges[:dropped]))
            return FittedExchange(without(dropped), Fitted(messages, [], dropped=gone))
    return fit_lesson(chat, row, end, lesson, limit)


def fit_lesson(chat: ChatFormat, row: DemonstrationRow, end: int, lesson: Encoded, limit: int) -> FittedExchange | None:
    """The lesson whose last turn, after `end` turns of the row, is all that it teaches, in at most `limit` tokens; None
    if the reply is too long for its question."""
    messages = row.messages[:end]
    if len(lesson.ids) <= limit:
        return FittedExchange(lesson, Fitted(messages, []))
    fitted = fit_exchange(chat, messages[:-1], messages[-1].content, limit)
    return None if fitted.cut_reply else fitted


def demonstration_examples(rows: list[WeightedExample], chat: ChatFormat, device: torch.device) -> Examples[TextBatch]:
    sizes = Sizes.of([len(encoded.ids) for encoded, _ in rows], [encoded.targets * weight for encoded, weight in rows])

    def batch(chosen: Rows) -> TextBatch:
        picked = [rows[int(i)] for i in chosen]
        encoded_batch = text_batch(
            [encoded.ids for encoded, _ in picked], [encoded.mask for encoded, _ in picked], chat.pad_id, device
        )
        counts = torch.tensor([encoded.targets for encoded, _ in picked])
        weights = torch.tensor([weight for _, weight in picked]).repeat_interleave(counts)
        return encoded_batch._replace(weights=weights.to(device))

    return Examples(sizes, batch)
