"""What a ranking says about scores: the mathematics of the reward model, as pure functions.

A ranking of K replies is a set of comparisons of two. Each reply is scored once, and all comparisons of its ranking
are read from that one pass (Ouyang et al. 2022, arXiv:2203.02155, section 3.5). P is the number of comparisons of a
batch, S the number of scored replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Ties = Literal["half", "davidson", "drop"]


class Comparisons(NamedTuple):
    """P comparisons between S scored replies, all tensors of shape (P,)."""

    first: Tensor  # index of the reply that is at least as good
    second: Tensor  # index of the other
    outcome: Tensor  # 1 where the first is better, 0.5 for a tie
    weight: Tensor  # the ranking's weight shared among its comparisons
    strength: Tensor  # how much better, in the person's own units; 0 where not said, and for ties
    annotator: Tensor  # number of the person who said so; 0: nobody in particular


def comparisons_of(
    groups: Sequence[Sequence[int]], ties: Ties = "half", kinds: Sequence[int] = ()
) -> list[tuple[int, int, float]]:
    """All (first, second, outcome) of a ranking whose `groups` go from best to worst; "drop" leaves tied pairs out.
    `kinds`, if given, says by index which replies are the same; pairs of the same are left out."""
    pairs = []
    for level, group in enumerate(groups):
        if ties != "drop":
            pairs += [(i, j, 0.5) for i, j in combinations(sorted(group), 2)]
        pairs += [(i, j, 1.0) for worse in groups[level + 1 :] for i in group for j in worse]
    return [pair for pair in pairs if kinds[pair[0]] != kinds[pair[1]]] if kinds else pairs


class Ranked(NamedTuple):
    """What one person said about a set of replies."""

    groups: Sequence[Sequence[int]]  # best first; indices into the set
    weight: float = 1.0
    strength: float | None = None
    annotator: int = 0
    kinds: Sequence[int] = ()  # by index, which replies are the same as tokens; none given: they all differ


def collate_comparisons(sets: Sequence[Sequence[Ranked]], ties: Ties = "half") -> Comparisons:
    """The comparisons of all rankings of several sets of replies, whose replies are scored one set after the other.

    A ranking's weight is shared evenly among its comparisons (InstructGPT, equation 1), so that K replies do not count
    K(K - 1)/2 times.
    """
    rows: list[tuple[int, int, float, float, float, int]] = []
    start = 0
    for rankings in sets:
        for groups, own_weight, own_strength, person, kinds in rankings:
            pairs = comparisons_of(groups, ties, kinds)
            for i, j, better in pairs:
                stated = own_strength if own_strength is not None and better == 1.0 else 0.0
                rows.append((start + i, start + j, better, own_weight / len(pairs), stated, person))
        start += sum(len(group) for group in rankings[0].groups)
    columns = list(zip(*rows, strict=True)) or [()] * 6
    better_index, second, annotator = (torch.tensor(columns[i], dtype=torch.long) for i in (0, 1, 5))
    outcome, weight, strength = (torch.tensor(column, dtype=torch.float32) for column in columns[2:5])
    return Comparisons(better_index, second, outcome, weight, strength, annotator)


def bradley_terry_nll(difference: Tensor, outcome: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-log P(outcome) under P(first > second) = sigmoid(difference - margin); a tie is half a win each way.

    difference, outcome: (P,) -> (P,), in nats. Bradley & Terry 1952; the margin is Llama 2's (arXiv:2307.09288, eq. 2).
    """
    return functional.binary_cross_entropy_with_logits(difference - margin, outcome, reduction="none")


def davidson_nll(difference: Tensor, outcome: Tensor, log_nu: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-log P(outcome) where a tie has a probability of its own: with d the difference of two scores,
    P(win) : P(loss) : P(tie) = exp(d/2) : exp(-d/2) : nu. Davidson 1970, equation 2.2, in log-worths.

    difference, outcome: (P,); log_nu: () -> (P,), in nats.
    """
    half = (difference - margin) / 2
    logits = torch.stack([half, -half, log_nu.to(half).expand_as(half)])
    chosen = torch.where(outcome == 0.5, logits[2], logits[0] * outcome + logits[1] * (1 - outcome))
    return torch.logsumexp(logits, dim=0) - chosen


def preference_loss(
    scores: Tensor,
    comparisons: Comparisons,
    *,
    log_nu: Tensor | None = None,
    margin: float = 0.0,
    centring: float = 0.0,
    reliability: Tensor | None = None,
) -> Tensor:
    """The weighted sum of the comparisons' losses, to be divided by the sum of the rankings' weights.

    scores: (S,) -> (). `log_nu` given: Davidson's model of ties, else half a win each way. `margin` multiplies the
    stated strength. `centring` weighs (first + second)^2, which fixes the free constant of the scores at zero
    (Eisenstein et al. 2023, arXiv:2312.09244, section 2.1). `reliability` (annotators,) multiplies the difference that
    each person sees: at 0 they choose at random, and teach nothing.
    """
    better_scores, second = scores[comparisons.first].float(), scores[comparisons.second].float()
    gap = margin * comparisons.strength
    difference = (
        better_scores - second if reliability is None else (better_scores - second) * reliability[comparisons.annotator]
    )
    if log_nu is None:
        loss = bradley_terry_nll(difference, comparisons.outcome, gap)
    else:
        loss = davidson_nll(difference, comparisons.outcome, log_nu, gap)
    return ((loss + centring * (better_scores + second).square()) * comparisons.weight).sum()


def calibration_temperature(difference: Tensor, outcome: Tensor, *, low: float = 0.02, high: float = 50.0) -> float:
    """The T for which sigmoid(difference / T) fits the outcomes best (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    difference, outcome: (P,). The loss is convex in 1/T, so its slope is bisected; the answer is kept in [low, high],
    which it would leave where the scores separate every comparison or none.
    """
    d, o = difference.double(), outcome.double()
    cold, warm = 1 / low, 1 / high  # as 1/T
    for _ in range(60):
        middle = (cold * warm) ** 0.5
        if float((d * (torch.sigmoid(middle * d) - o)).sum()) > 0:
            cold = middle
        else:
            warm = middle
    return float(1 / (cold * warm) ** 0.5)
