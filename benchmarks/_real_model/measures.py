"""Figures with their intervals, and replies side by side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from training.run.intervals import Interval, clustered_mean, clustered_share, wins

Figures = dict[str, Any]
SHOWN: Final = 10


def win_rate(ours: Sequence[float], theirs: Sequence[float], prompts: Sequence[str]) -> Interval:
    """How often the first of two scores is the higher one; a tie is half a win."""
    return clustered_share(wins(ours, theirs), prompts)


def mean_of(values: Sequence[float], prompts: Sequence[str]) -> Interval:
    return clustered_mean(values, prompts)


def change_of(before: Sequence[float], after: Sequence[float]) -> Interval:
    """The mean difference of the same items, with its interval."""
    return clustered_mean([b - a for a, b in zip(before, after, strict=True)], range(len(before)))


def side_by_side(
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    scores_before: Sequence[float],
    scores_after: Sequence[float],
    *,
    seed: int,
) -> list[Figures]:
    """Ten prompts with both replies as they are: the two that gained most, the two that lost most, six by chance."""
    gains = [a - b for b, a in zip(scores_before, scores_after, strict=True)]
    order = sorted(range(len(gains)), key=lambda i: gains[i])
    ends = [*order[-2:], *order[:2]]
    others = [i for i in range(len(gains)) if i not in ends]
    drawn = random.Random(seed).sample(others, min(SHOWN - len(ends), len(others)))
    kinds = ["most gained"] * 2 + ["most lost"] * 2 + ["drawn"] * len(drawn)
    return [
        {
            "chosen": kind,
            "prompt": before[i]["messages"][-1]["content"],
            "before": {"reply": before[i]["reply"], "score": round(scores_before[i], 2)},
            "after": {"reply": after[i]["reply"], "score": round(scores_after[i], 2)},
        }
        for kind, i in zip(kinds, [*ends, *drawn], strict=True)
    ]


def accuracy_of(reward: dict[str, Any]) -> Interval:
    """How often a reward model agrees with the held-out rankings of its run."""
    return interval_of(reward, "heldout_accuracy")


def interval_of(run: dict[str, Any], name: str) -> Interval:
    """A figure of a run with its interval."""
    low, high, n = run["result"]["intervals"][name]
    return Interval(run["result"]["metrics"][name], low, high, n)
