"""Rankings as what a reward model learns from: every set of replies encoded once, with all that people said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from training.contract import InputError, RankingRow, RewardSettings
from training.data.batching import Examples, Rows, Sizes
from training.data.chat_format import ChatFormat
from training.data.fitting import RowCounts
from training.data.packing import Packed, moved, pack
from training.models.compute import Compute
from training.preferences.annotator_reliability import annotators_of
from training.preferences.losses import Comparisons, Ranked, Ties, collate_comparisons, comparisons_of
from training.preferences.reward_model import encode


class RankingBatch(NamedTuple):
    packed: Packed  # every reply with its prompt, to its end token
    comparisons: Comparisons
    weight: float  # the sum of the rankings' weights


def usable_rankings_of(rows: Sequence[RankingRow], config: RewardSettings) -> tuple[list[RankingRow], dict[str, int]]:
    """The rows that say something, and how many do not: no weight, or nothing but ties where ties are dropped.

    Raises InputError if rows were given and none is left.
    """
    weighed = [row for row in rows if row.weight > 0]
    comparable = [row for row in weighed if comparisons_of(row.groups, config.ties)]
    left_out = {"left_out/no_weight": len(rows) - len(weighed), "left_out/only_ties": len(weighed) - len(comparable)}
    if rows and not comparable:
        raise InputError(
            "reward: no ranking puts one reply above another, so there is nothing to learn", code="no_data"
        )
    return comparable, left_out


def share_of_ties(rows: Sequence[RankingRow]) -> float:
    outcomes = [outcome for row in rows for *_, outcome in comparisons_of(row.groups)]
    return sum(outcome != 1 for outcome in outcomes) / len(outcomes)


class ReplySet(NamedTuple):
    """The replies to one prompt that people ranked, as tokens behind their prompt, and all rankings of them."""

    encoded: Sequence[list[int]]
    rankings: list[Ranked]

    @property
    def weight(self) -> float:
        return sum(ranked.weight for ranked in self.rankings)


def reply_sets(rows: Sequence[RankingRow], encoded: Sequence[Sequence[list[int]]]) -> list[ReplySet]:
    """The rows by what was ranked, in the order of their first ones: people see the replies in different orders.
    `encoded` holds each row's replies as tokens."""
    numbers = {name: number for number, name in enumerate(annotators_of(rows), 1)}
    sets: dict[tuple[Any, ...], ReplySet] = {}
    for row, ids in zip(rows, encoded, strict=True):
        order = sorted(range(len(row.replies)), key=row.replies.__getitem__)
        new_index = {old: new for new, old in enumerate(order)}
        key = (*((turn.role, turn.content) for turn in row.messages), *(row.replies[i] for i in order))
        groups = [[new_index[i] for i in group] for group in row.groups]
        reply_set = sets.setdefault(key, ReplySet([ids[i] for i in order], []))
        annotator = numbers.get(row.annotator, 0)
        reply_set.rankings.append(Ranked(groups, row.weight, row.strength, annotator, kinds_of(reply_set.encoded)))
    return list(sets.values())


def ranking_examples(
    rows: Sequence[RankingRow], chat: ChatFormat, config: RewardSettings, limit: int, compute: Compute
) -> tuple[list[RankingRow], Examples[RankingBatch], RowCounts]:
    """The rows that can be learned from, batches of whole sets of replies, every reply encoded once and in at most
    `limit` tokens, and what was left out or shortened. Raises InputError if nothing is left."""
    changes = RowCounts("rankings", limit)
    pairs = [(row, encode_replies(row, chat, limit, changes, config.ties)) for row in rows]
    usable_rows = [row for row, ids in pairs if ids]
    if rows and not usable_rows:
        raise InputError(f"reward: nothing to learn from; {'; '.join(changes.sentences(len(rows)))}", code="no_data")
    sets = reply_sets(usable_rows, [ids for _, ids in pairs if ids])
    sizes = Sizes.of_several(
        [[len(ids) for ids in reply_set.encoded] for reply_set in sets], [reply_set.weight for reply_set in sets]
    )

    def batch(chosen: Rows) -> RankingBatch:
        ids = [ids for i in chosen for ids in sets[i].encoded]
        comparisons = collate_comparisons([sets[i].rankings for i in chosen], config.ties)
        return RankingBatch(
            moved(pack(ids, chat.pad_id), compute.device),
            Comparisons(*(column.to(compute.device) for column in comparisons)),
            sum(sets[i].weight for i in chosen),
        )

    return usable_rows, Examples(sizes, batch), changes


def encode_replies(
    row: RankingRow, chat: ChatFormat, limit: int, changes: RowCounts, ties: Ties = "half"
) -> list[list[int]]:
    """The row's replies with their prompt, in at most `limit` tokens each, and what was changed counted. Nothing if the
    template refuses the row, or if no two replies that the person compared differ within the limit."""
    with changes.leave_out_if_refused(row.id):
        fitted = [encode(chat, row.messages, reply, limit) for reply in row.replies]
        ids = [fitted_reply.encoded.ids for fitted_reply in fitted]
        kinds = kinds_of(ids)
        if not comparisons_of(row.groups, ties, kinds):
            changes.add("left_out/equal", row.id)
            return []
        if len(set(kinds)) < len(kinds):
            changes.add("cut/equal_pairs", row.id)
        changes.add_fitted(
            max((fitted_reply.prompt for fitted_reply in fitted), key=lambda prompt: prompt.dropped), row.id, chat
        )
        if any(fitted_reply.cut_reply for fitted_reply in fitted):
            changes.add("cut/reply", row.id)
        return ids
    return []


def encode_heldout(
    rows: Sequence[RankingRow], chat: ChatFormat, limit: int
) -> tuple[list[RankingRow], list[list[list[int]]], RowCounts]:
    """The held-out rows that can be scored, and their replies as tokens."""
    changes = RowCounts("held-out rankings", limit)
    pairs = [(row, encode_replies(row, chat, limit, changes)) for row in rows]
    return [row for row, ids in pairs if ids], [ids for _, ids in pairs if ids], changes


def kinds_of(replies: Sequence[Sequence[int]]) -> list[int]:
    """For each encoded reply a number, the same for the same tokens."""
    numbers: dict[tuple[int, ...], int] = {}
    return [numbers.setdefault(tuple(ids), len(numbers)) for ids in replies]


def scorable(rows: Sequence[RankingRow], formats: Sequence[ChatFormat]) -> tuple[list[RankingRow], RowCounts]:
    """The rows whose prompts all of the formats take, and the count of the rest. Raises InputError if none does."""
    changes, kept_rows = RowCounts("rankings", 0), []
    for row in rows:
        with changes.leave_out_if_refused(row.id):
            for chat in formats:
                chat.prompt(row.messages)
            kept_rows.append(row)
    if rows and not kept_rows:
        raise InputError("; ".join(changes.sentences(len(rows))), code="no_data")
    return kept_rows, changes
