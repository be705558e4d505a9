"""How well scores agree with people's rankings: accuracy with its interval, by source and person, and what length alone
would have reached."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import stdev

import torch

from training.contract import RankingRow
from training.preferences.losses import bradley_terry_nll, calibration_temperature, comparisons_of
from training.run.intervals import Interval, clustered_share, correlation_within, wins


@dataclass
class Agreement:
    """Figures by name, the accuracy's interval, and counts of right answers by source and annotator."""

    metrics: dict[str, float]
    accuracy: Interval
    counts: dict[str, int] = field(default_factory=dict)
    temperature: float = 1.0


@dataclass(frozen=True)
class _Comparison:
    row: RankingRow
    prompt: str
    difference: float
    longer: float  # length of the better one less that of the other
    outcome: float
    spread: float  # the members' deviation of the difference; 0 for one member


def prompt_key(row: RankingRow) -> str:
    """One key for all rankings of one prompt, whoever gave them."""
    return "\n".join(f"{turn.role}: {turn.content}" for turn in row.messages)


def agreement(
    rows: Sequence[RankingRow],
    scores: Sequence[Sequence[float]],
    lengths: Sequence[Sequence[int]],
    members: Sequence[Sequence[Sequence[float]]] = (),
) -> Agreement | None:
    """How the scores of the rows' replies agree with the rows' orders; None if no reply is ranked above another.

    scores and lengths hold, for each row, one figure for each of its replies; lengths in one unit. Accuracy counts
    the comparisons that a person decided; two equal scores are half right. Ties are apart: `gap_tied` against
    `gap_decided` says whether replies that people find equal also score alike. Where several `members` score as one,
    with scores laid out like `scores`, `spread_right` and `spread_wrong` are how far they disagree about a difference
    where together they are right, and where not.
    """
    comparisons = [
        _Comparison(row, prompt_key(row), s[i] - s[j], n[i] - n[j], outcome, spread_of(i, j, member_scores))
        for row, s, n, *member_scores in zip(rows, scores, lengths, *members, strict=True)
        for i, j, outcome in comparisons_of(row.groups)
    ]
    decided = [c for c in comparisons if c.outcome == 1]
    tied = [c for c in comparisons if c.outcome != 1]
    if not decided:
        return None
    right = wins([c.difference for c in decided], [0.0] * len(decided))
    accuracy = clustered_share(right, [c.prompt for c in decided])
    longer = sum(wins([c.longer for c in decided], [0.0] * len(decided))) / len(decided)
    difference = torch.tensor([c.difference for c in comparisons], dtype=torch.float64)
    outcome = torch.tensor([c.outcome for c in comparisons], dtype=torch.float64)
    temperature = calibration_temperature(difference, outcome)
    metrics = {
        "accuracy": accuracy.value,
        "loss": float(bradley_terry_nll(difference, outcome).mean()),
        "calibrated_loss": float(bradley_terry_nll(difference / temperature, outcome).mean()),
        "calibration_temperature": temperature,
        "length_correlation": _length_correlation(rows, scores, lengths),
        "length_only_accuracy": max(longer, 1 - longer),
        "longer_is_better": longer,
        "gap_decided": sum(abs(c.difference) for c in decided) / len(decided),
    }
    metrics |= reliability([c.difference for c in decided])
    if len(members) > 1:
        for name, outcome_value in (("spread_right", 1.0), ("spread_wrong", 0.0)):
            if spreads := [c.spread for c, value in zip(decided, right, strict=True) if value == outcome_value]:
                metrics[name] = sum(spreads) / len(spreads)
    if tied:
        metrics["gap_tied"] = sum(abs(c.difference) for c in tied) / len(tied)
    counts = {"comparisons": len(decided), "ties": len(tied), **_by_origin(decided, right)}
    return Agreement(metrics, accuracy, counts, temperature)


def spread_of(better: int, second: int, members: Sequence[Sequence[float]]) -> float:
    """The standard deviation over the members of their scores' difference; 0 for fewer than two."""
    return stdev(scores[better] - scores[second] for scores in members) if len(members) > 1 else 0.0


def reliability(differences: Sequence[float]) -> dict[str, float]:
    """How far the probabilities that score differences stand for can be believed. differences: of decided comparisons,
    the better reply's score less the other's.

    The model believes with sigmoid(|difference|) that the reply it prefers is the better one. `reliability/0.7` is how
    often that was so where it believed 0.65 to 0.75, and `ece` the expected calibration error: the mean distance of
    belief and truth over such bins, weighed by their comparisons (Guo et al. 2017, arXiv:1706.04599, equation 3).
    """
    bins: dict[float, list[tuple[float, float]]] = {}
    for difference in differences:
        belief = 1 / (1 + math.exp(-abs(difference)))
        right = 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0
        bins.setdefault(round(belief, 1), []).append((belief, right))
    figures: dict[str, float] = {"ece": 0.0}
    for middle, pairs in sorted(bins.items()):
        believed, true = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        figures[f"reliability/{middle:.1f}"] = true
        figures["ece"] += abs(believed - true) * len(pairs) / len(differences)
    return figures


def _length_correlation(
    rows: Sequence[RankingRow], scores: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]]
) -> float:
    """Between score and length of the replies to one prompt, over all prompts."""
    prompts = [prompt_key(row) for row, row_scores in zip(rows, scores, strict=True) for _ in row_scores]
    return correlation_within(
        [s for row_scores in scores for s in row_scores],
        [float(n) for row_scores in lengths for n in row_scores],
        prompts,
    )


def _by_origin(decided: Sequence[_Comparison], right: Sequence[float]) -> dict[str, int]:
    """Comparisons, and those the scores got right, for each source, annotator and strength that the rows name."""
    counts: Counter[str] = Counter()
    for comparison, value in zip(decided, right, strict=True):
        for kind in ("source", "annotator"):
            if name := getattr(comparison.row, kind):
                counts[f"{kind}/{name}/comparisons"] += 1
                counts[f"{kind}/{name}/right"] += value == 1
        if (strength := comparison.row.strength) is not None:
            counts[f"strength/{strength:g}/comparisons"] += 1
            counts[f"strength/{strength:g}/right"] += value == 1
    return dict(sorted(counts.items()))
