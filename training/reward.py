"""The reward stage: learns from people's rankings what a good reply is.

Every reply is encoded once, however many people ranked it, and all comparisons are read from that one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from training.agreement import Agreement, agreement
from training.batching import Rows, Sizes
from training.chatformat import ChatFormat
from training.contract import MODEL, InputError, RankingRow, RewardSettings, Turn
from training.loop import Examples, Learner, Sums, train
from training.models import Compute, about, load_tokenizer, prepare
from training.packing import Packed, moved, pack
from training.preference import Comparisons, Ranked, collate_comparisons, comparisons_of, preference_loss
from training.processes import spread
from training.reward_model import RewardModel, encode, reward_from_language_model, save_reward, score_ids
from training.rundir import Run

TIES_RATE = 1e-2  # of Davidson's one parameter, which begins near its place


class RankingBatch(NamedTuple):
    packed: Packed  # every reply with its prompt, to its end token
    comparisons: Comparisons
    weight: float  # the sum of the rankings' weights


class TieRate(nn.Module):
    """Davidson's tie parameter, from the share of comparisons that are ties: at equal scores nu / (2 + nu)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        share = min(max(share, 0.01), 0.9)
        self.log_nu = nn.Parameter(torch.tensor(math.log(2 * share / (1 - share))))


def main(run: Run[RewardSettings]) -> None:
    config = run.config
    compute = prepare(run)
    rows, left_out = usable(run.rows("rankings", RankingRow, config.min_rows), config)
    heldout, _ = usable(run.rows("heldout", RankingRow), config)
    tokenizer = load_tokenizer(config.base)
    chat = ChatFormat(tokenizer, config.base)
    language, model = reward_from_language_model(config.base, compute, config.lora)
    most = min(config.max_tokens, model.max_tokens)
    with run.timed("encoding"):
        examples = ranking_examples(rows, chat, config, most, compute)
        held = [[encode(chat, row.messages, reply, most) for reply in row.replies] for row in heldout]
    ties = TieRate(share_of_ties(rows)).to(compute.device) if config.ties == "davidson" else None
    modules: dict[str, nn.Module] = {"model": model} | ({"ties": ties} if ties else {})
    learner = Learner(modules, config, compute, rates={"ties": TIES_RATE})

    def loss(batch: RankingBatch) -> Sums:
        scores = model(batch.packed)
        total = preference_loss(
            scores,
            batch.comparisons,
            log_nu=ties.log_nu if ties else None,
            margin=config.margin,
            centring=config.centring,
        )
        return {"loss": (total, batch.weight), **accuracy(scores.detach(), batch.comparisons)}

    def evaluate(step: int, final: bool) -> dict[str, float]:  # noqa: ARG001 - every evaluation looks at all rows
        found = agree(model, chat, heldout, held, config.micro_tokens, compute) if heldout else None
        return {f"heldout_{name}": value for name, value in found.metrics.items()} if found else {}

    with run.timed("training"):
        figures = train(
            run, learner, examples, loss,
            epochs=config.epochs, max_steps=config.max_steps, evaluate=evaluate,
        )  # fmt: skip
    if config.lora.rank:
        language.merge_and_unload()
    with run.timed("evaluation"):
        found = agree(model, chat, heldout, held, config.micro_tokens, compute) if heldout else None
    figures |= {f"heldout_{name}": value for name, value in found.metrics.items()} if found else {}
    kept = {"max_tokens": most, "temperature": found.temperature if found else 1.0}
    if ties:
        figures["log_nu"] = kept["log_nu"] = ties.log_nu.item()
    if run.main:
        with run.writing(MODEL) as folder:
            save_reward(model, tokenizer, folder, kept)
    intervals = {}
    if found and found.accuracy.low is not None and found.accuracy.high is not None:
        intervals["heldout_accuracy"] = (found.accuracy.low, found.accuracy.high, found.accuracy.n)
    run.finish(
        figures,
        intervals=intervals,
        counts={"rankings": len(rows), "heldout": len(heldout), **left_out}
        | ({f"heldout/{name}": count for name, count in found.counts.items()} if found else {}),
        model=about(language, "reward"),
    )


def usable(rows: Sequence[RankingRow], config: RewardSettings) -> tuple[list[RankingRow], dict[str, int]]:
    """The rows that say something, and how many do not: no weight, or nothing but ties where ties are dropped.

    Raises InputError where rows were given and none is left.
    """
    weighed = [row for row in rows if row.weight > 0]
    kept = [row for row in weighed if comparisons_of(row.groups, config.ties)]
    left_out = {"left_out/no_weight": len(rows) - len(weighed), "left_out/only_ties": len(weighed) - len(kept)}
    if rows and not kept:
        raise InputError(
            "reward: no ranking puts one reply above another, so there is nothing to learn", code="no_data"
        )
    return kept, left_out


def share_of_ties(rows: Sequence[RankingRow]) -> float:
    outcomes = [outcome for row in rows for *_, outcome in comparisons_of(row.groups)]
    return sum(outcome != 1 for outcome in outcomes) / len(outcomes)


class ReplySet(NamedTuple):
    """The replies to one prompt that people ranked, and all their rankings of them."""

    messages: Sequence[Turn]
    replies: Sequence[str]
    rankings: list[Ranked]

    @property
    def weight(self) -> float:
        return sum(ranked.weight for ranked in self.rankings)


def reply_sets(rows: Sequence[RankingRow]) -> list[ReplySet]:
    """The rows by what was ranked, in the order of their first ones: people see the replies in different orders."""
    found: dict[tuple[Any, ...], ReplySet] = {}
    for row in rows:
        order = sorted(range(len(row.replies)), key=row.replies.__getitem__)
        replies = [row.replies[i] for i in order]
        place = {old: new for new, old in enumerate(order)}
        key = (*((turn.role, turn.content) for turn in row.messages), *replies)
        groups = [[place[i] for i in group] for group in row.groups]
        one = found.setdefault(key, ReplySet(row.messages, replies, []))
        one.rankings.append(Ranked(groups, row.weight, row.strength))
    return list(found.values())


def ranking_examples(
    rows: Sequence[RankingRow], chat: ChatFormat, config: RewardSettings, most: int, compute: Compute
) -> Examples[RankingBatch]:
    """Batches of whole sets of replies, every reply encoded once and in at most `most` tokens."""
    sets = reply_sets(rows)
    encoded = [[encode(chat, one.messages, reply, most) for reply in one.replies] for one in sets]
    sizes = Sizes.of([sum(map(len, replies)) for replies in encoded], [one.weight for one in sets])

    def batch(chosen: Rows) -> RankingBatch:
        ids = [ids for i in chosen for ids in encoded[i]]
        comparisons = collate_comparisons([sets[i].rankings for i in chosen], config.ties)
        return RankingBatch(
            moved(pack(ids, chat.pad_id), compute.device),
            Comparisons(*(column.to(compute.device) for column in comparisons)),
            sum(sets[i].weight for i in chosen),
        )

    return Examples(sizes, batch)


def accuracy(scores: Tensor, comparisons: Comparisons) -> dict[str, tuple[float, float]]:
    """Decided comparisons in which the better reply scores higher, equal scores being half right; and their number."""
    decided = comparisons.outcome == 1
    if not decided.any():
        return {}
    difference = (scores[comparisons.first] - scores[comparisons.second])[decided]
    right = (difference > 0).sum() + 0.5 * (difference == 0).sum()
    return {"accuracy": (float(right), len(difference))}


def agree(
    model: RewardModel,
    chat: ChatFormat,
    rows: Sequence[RankingRow],
    encoded: Sequence[Sequence[Sequence[int]]],
    micro_tokens: int,
    compute: Compute,
) -> Agreement | None:
    """How the model's scores agree with held-out rankings; `encoded` holds each row's replies."""
    with torch.no_grad(), compute.autocast():
        flat = spread(
            [ids for row in encoded for ids in row], lambda part: score_ids(model, part, chat.pad_id, micro_tokens)
        )
    cuts = np.cumsum([len(row) for row in encoded])[:-1]
    scores = [part.tolist() for part in np.split(np.array(flat), cuts)]
    lengths = [[len(chat.text(reply)) for reply in row.replies] for row in rows]
    return agreement(rows, scores, lengths)
