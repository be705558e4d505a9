"""How far annotators agree about the same replies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

import numpy as np
from django.db.models import Count

from annotations.alpha import krippendorff_alpha
from annotations.models import Ranking
from annotations.selectors import COUNTED
from webapp.accounts.models import Project, User

Z95 = 1.959963984540054


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators: the share of comparisons on which they agree; a tie against a choice is half an agreement."""

    a: User
    b: User
    value: float
    comparisons: int


@dataclass(frozen=True)
class LabelAgreement:
    """Over all pairs of annotators; None if there is too little to say.

    `value`, `low` and `high` are the share of comparisons agreed on and its 95 % interval, clustered by task; `alpha`
    is Krippendorff's over comparisons (worse, tied, better; ordinal).
    """

    pairs: list[PairAgreement]
    value: float | None
    low: float | None
    high: float | None
    comparisons: int
    tasks: int
    alpha: float | None


def comparisons(groups: Sequence[Sequence[int]]) -> dict[tuple[int, int], int]:
    """For each two replies a < b of a ranking: 1 when a is better, -1 when b is, 0 when they tie."""
    rank_of = {response: n for n, group in enumerate(groups) for response in group}
    return {(a, b): (rank_of[a] < rank_of[b]) - (rank_of[a] > rank_of[b]) for a, b in combinations(sorted(rank_of), 2)}


def pair_agreement(word: int, other_word: int) -> float:
    """1 for the same word on two replies, 0 for the opposite, half where one of two people sees a tie."""
    return 1.0 - abs(word - other_word) / 2


def clustered_interval(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float | None, float | None]:
    """Share with its 95 % interval: normal approximation, linearised ratio of `sums` to `counts` over clusters."""
    s, n = np.asarray(sums, float), np.asarray(counts, float)
    share = float(s.sum() / n.sum())
    if len(s) < 2:
        return share, None, None
    residual = s - share * n
    error = sqrt(len(s) / (len(s) - 1) * float((residual**2).sum())) / float(n.sum())
    return share, max(0.0, share - Z95 * error), min(1.0, share + Z95 * error)


def ordinal_alpha(judgments: Iterable[dict[int, int]]) -> float | None:
    """Krippendorff's alpha of `judgments`: for each unit (two replies), the word of each annotator by their id."""
    labels = [(unit, word) for unit, words in enumerate(judgments) for word in words.values()]
    units, values = np.array(labels, dtype=np.int64).reshape(-1, 2).T
    return krippendorff_alpha(units, values, "ordinal")


def ranking_agreement(project: Project) -> LabelAgreement:
    """Agreement over the tasks that two or more people ranked."""
    counted = Ranking.objects.filter(COUNTED, prompt__project=project, task__isnull=False)
    shared = counted.values("task").annotate(n=Count("id")).filter(n__gt=1).values("task")
    by_task: dict[int, dict[int, dict[tuple[int, int], int]]] = defaultdict(dict)
    rows = counted.filter(task__in=shared).values_list("task_id", "author_id", "groups")
    for task, author, groups in rows:
        by_task[task][author] = comparisons(groups)
    pair_sum: dict[tuple[int, int], float] = defaultdict(float)
    pair_count: dict[tuple[int, int], int] = defaultdict(int)
    sums, counts, units = [], [], []
    for rankings in by_task.values():
        total, number = 0.0, 0
        for a, b in combinations(sorted(rankings), 2):
            same = [pair_agreement(rankings[a][pair], rankings[b][pair]) for pair in rankings[a]]
            pair_sum[a, b] += sum(same)
            pair_count[a, b] += len(same)
            total, number = total + sum(same), number + len(same)
        sums.append(total)
        counts.append(number)
        any_ranking = next(iter(rankings.values()))
        units += [{person: words[pair] for person, words in rankings.items()} for pair in any_ranking]
    if not counts:
        return LabelAgreement(pairs=[], value=None, low=None, high=None, comparisons=0, tasks=0, alpha=None)
    value, low, high = clustered_interval(sums, counts)
    people = User.objects.in_bulk({person for pair in pair_count for person in pair})
    pairs = [
        PairAgreement(people[a], people[b], pair_sum[a, b] / pair_count[a, b], pair_count[a, b])
        for a, b in sorted(pair_count, key=lambda pair: -pair_count[pair])
    ]
    return LabelAgreement(pairs, value, low, high, sum(counts), len(by_task), ordinal_alpha(units))
