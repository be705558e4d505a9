"""Simulated annotators: they see the gold rubric through noise, each with a reliability of their own.

A person's impression of a reply is its gold score plus normal noise of deviation `noise` points. Replies whose
impressions lie within `tie` points of the best of their group share it. With probability `lapse` a whole ranking is
random.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from .rubric import gold_score
from .world.cases import Case


@dataclass(frozen=True)
class Annotator:
    """One person. `noise` and `tie` are in rubric points, `lapse` is a probability."""

    name: str
    noise: float
    tie: float = 0.5
    lapse: float = 0.0

    def rank(self, scores: Sequence[float], rng: random.Random) -> list[list[int]]:
        """Groups of indices into `scores`, best first; replies of a group are tied."""
        lapsed = rng.random() < self.lapse
        perceived = [rng.random() * 10 if lapsed else value + rng.gauss(0, self.noise) for value in scores]
        groups: list[list[int]] = []
        for index in sorted(range(len(perceived)), key=lambda i: -perceived[i]):
            if groups and perceived[groups[-1][0]] - perceived[index] < self.tie:
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    def rank_replies(self, case: Case, replies: Sequence[str], rng: random.Random) -> list[list[int]]:
        """The same for replies to a case, judged by the gold rubric."""
        return self.rank([gold_score(case, reply) for reply in replies], rng)

    def chances(self, gap: float) -> tuple[float, float]:
        """Probabilities that of two replies, the first better by `gap` points, the first wins and the second wins.

        The difference of two impressions is normal with mean `gap` and deviation sqrt(2) · noise; a lapse draws both
        impressions evenly from 0 to 10, so each wins with probability (1 - tie / 10)² / 2.
        """
        spread = self.noise * math.sqrt(2)
        first_wins = _above((self.tie - gap) / spread)
        second = _above((self.tie + gap) / spread)
        blind = (1 - self.tie / 10) ** 2 / 2
        return tuple((1 - self.lapse) * chance + self.lapse * blind for chance in (first_wins, second))  # type: ignore[return-value]


def _above(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))


ANNOTATORS: Final = (
    Annotator("Ada", noise=0.5, lapse=0.01),
    Annotator("Bruno", noise=1.0, lapse=0.03),
    Annotator("Clara", noise=1.0, lapse=0.02),
    Annotator("Deniz", noise=2.0, lapse=0.08),
    Annotator("Emeka", noise=1.5, lapse=0.05),
)


def expected_agreement(annotator: Annotator, colleague: Annotator, gaps: Sequence[float]) -> float:
    """How often two people who both prefer one of a pair prefer the same one, for pairs with these gold gaps."""
    same = differ = 0.0
    for gap in gaps:
        a, b = annotator.chances(gap), colleague.chances(gap)
        same += a[0] * b[0] + a[1] * b[1]
        differ += a[0] * b[1] + a[1] * b[0]
    return same / (same + differ)


def ranking_pair_agreement(rankings: Sequence[tuple[list[list[int]], list[list[int]]]]) -> tuple[float, int]:
    """Share of pairs on which two rankings of the same replies agree, where both prefer one; and how many pairs."""
    same = pairs = 0
    for groups, other_groups in rankings:
        place_one, place_other = ranks_by_index(groups), ranks_by_index(other_groups)
        for i, j in combinations(sorted(place_one), 2):
            a, b = place_one[i] - place_one[j], place_other[i] - place_other[j]
            if a and b:
                pairs += 1
                same += (a > 0) == (b > 0)
    return (same / pairs if pairs else math.nan), pairs


def ranks_by_index(groups: Sequence[Sequence[int]]) -> dict[int, int]:
    """Index → place of its group, 0 the best."""
    return {index: rank for rank, group in enumerate(groups) for index in group}
