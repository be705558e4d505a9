"""What people said of two models, in figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from django.db.models import Count, Max, QuerySet

from annotations.agreement import clustered_interval, comparisons, ordinal_alpha, pair_agreement
from annotations.models import Ranking
from annotations.selectors import COUNTED
from webapp.accounts.models import User
from webapp.comparisons.models import Comparison, Pair
from webapp.comparisons.selectors import live_pairs
from webapp.judges.statistics import Compared, Share, head_to_head, longer_preferred
from webapp.runs.models import Evaluation

WORDS = {1: "model", 0: "tie", -1: "baseline"}


@dataclass(frozen=True)
class JudgedPair:
    """A pair with what each person said: 1 for the model's reply, -1 for the baseline's, 0 for a tie."""

    pair: Pair
    words: Mapping[int, int]

    @property
    def win(self) -> float | None:
        """1 where the model's reply is better, 0 where the other one is, in between where people disagree or tie; None
        while nobody has judged it."""
        if self.pair.task_id is None:
            return 0.5
        return (sum(self.words.values()) / len(self.words) + 1) / 2 if self.words else None

    @property
    def outcome(self) -> str:
        win = self.win
        return "" if win is None else "model" if win > 0.5 else "baseline" if win < 0.5 else "tie"

    @property
    def lengths(self) -> tuple[int, int]:
        return len(self.pair.reply.text), len(self.pair.other_reply.text)


@dataclass(frozen=True)
class Person:
    """One person's judgments. `win_rate`: of the model, by this person. `agreement`: the share of other people's words
    on the same pairs that this person agrees with, a tie against a choice being half; None if there are none."""

    person: User
    judgments: int
    win_rate: float
    ties: int
    agreement: float | None
    others: int


def judgments_of(comparison: Comparison) -> QuerySet[Ranking]:
    """Those that count: not taken back, on a seat, of prompts in use."""
    return Ranking.objects.filter(
        COUNTED, task__compared_pair__comparison=comparison, prompt__withdrawn_at=None
    ).order_by("id")


def measured_of(comparison: Comparison) -> str:
    """What tells one set of judgments from the next."""
    facts = judgments_of(comparison).aggregate(n=Count("id"), newest=Max("created_at"))
    remaining_pairs = live_pairs(comparison).count()
    return f"{remaining_pairs} {facts['n']} {facts['newest'].timestamp() if facts['newest'] else ''}"


def judged_pairs(comparison: Comparison, pairs: QuerySet[Pair] | None = None) -> list[JudgedPair]:
    chosen = live_pairs(comparison) if pairs is None else pairs
    rows = list(chosen.select_related("prompt", "reply", "other_reply"))
    words: dict[int, dict[int, int]] = defaultdict(dict)
    sides = {pair.task_id: (pair.reply_id, pair.other_reply_id) for pair in rows if pair.task_id is not None}
    judgments = judgments_of(comparison).filter(task__in=list(sides))
    for task, author, groups in judgments.values_list("task_id", "author_id", "groups"):
        words[task][author] = word_of(groups, sides[task])
    return [JudgedPair(pair, words.get(pair.task_id or 0, {})) for pair in rows]


def word_of(groups: Sequence[Sequence[int]], side: tuple[int, int]) -> int:
    first, second = sorted(side)
    word = comparisons(groups).get((first, second), 0)
    return word if side == (first, second) else -word


def result_of(comparison: Comparison) -> dict[str, Any]:
    """For the page and the API: shares as {"value", "low", "high", "n"}. Each pair counts once, however many people
    judged it, so that the interval is one over prompts."""
    pairs = judged_pairs(comparison)
    judged = [(pair, win) for pair in pairs if (win := pair.win) is not None]
    result: dict[str, Any] = {"pairs": len(pairs), "judged": len(judged)}
    if not judged:
        return result
    compared = [Compared(win, *pair.lengths) for pair, win in judged]
    return result | {
        **head_to_head(compared),
        "equal": sum(pair.pair.task_id is None for pair, _ in judged),
        "longer": longer_preferred(compared),
        **agreement(pairs),
    }


def agreement(pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    """How far people agree on the pairs that several of them judged: the share, and Krippendorff's alpha."""
    shared = [list(pair.words.values()) for pair in pairs if len(pair.words) > 1]
    if not shared:
        return {"agreement": None, "alpha": None}
    same = [[pair_agreement(a, b) for a, b in combinations(words, 2)] for words in shared]
    share = clustered_interval([sum(values) for values in same], [len(values) for values in same])
    return {
        "agreement": Share(*share, sum(map(len, same))).as_json(),
        "alpha": ordinal_alpha([dict(pair.words) for pair in pairs if len(pair.words) > 1]),
    }


def people_of(comparison: Comparison) -> list[Person]:
    """Each person's judgments, those with the most first."""
    by_person: dict[int, list[int]] = defaultdict(list)
    same: dict[int, list[float]] = defaultdict(list)
    for pair in judged_pairs(comparison):
        for author, word in pair.words.items():
            by_person[author].append(word)
            same[author] += [pair_agreement(word, other) for who, other in pair.words.items() if who != author]
    people = User.objects.in_bulk(list(by_person))
    return [
        Person(
            person=people[author],
            judgments=len(words),
            win_rate=(sum(words) / len(words) + 1) / 2,
            ties=words.count(0),
            agreement=sum(same[author]) / len(same[author]) if same[author] else None,
            others=len(same[author]),
        )
        for author, words in sorted(by_person.items(), key=lambda row: (-len(row[1]), row[0]))
    ]


def rows_to_download(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Each pair with names and with every judgment; people have the numbers that exports give them."""
    names = comparison.model.name, comparison.baseline.name
    for judged in judged_pairs(comparison):
        pair = judged.pair
        yield {
            "id": f"pair:{pair.pk}",
            "prompt_id": f"prompt:{pair.prompt_id}",
            "messages": pair.prompt.messages,
            "models": list(names),
            "replies": [pair.reply.text, pair.other_reply.text],
            "win": judged.win,
            "judgments": [
                {"annotator": f"person:{author}", "better": WORDS[word]} for author, word in judged.words.items()
            ],
        }


def record_figures(comparison: Comparison, result: dict[str, Any]) -> None:
    """The result stands among the figures of the model, measured by the run that sampled the replies."""
    for name, share in (("win rate", result.get("win_rate")), ("length-controlled", result.get("length_controlled"))):
        title = f"people, {name} against {comparison.baseline.name}"[:80]
        figure = Evaluation.objects.filter(run=comparison.run, model=comparison.model, name=title)
        if not share:
            figure.delete()
            continue
        values = {key: share[key] for key in ("value", "low", "high", "n")}
        if not figure.update(**values):
            Evaluation.objects.create(run=comparison.run, model=comparison.model, name=title, **values)
