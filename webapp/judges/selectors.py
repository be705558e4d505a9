"""Reads of judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Avg, Count, Q, QuerySet, Sum

from webapp.accounts.models import Project
from webapp.judges.asking import known_answers
from webapp.judges.items import Item, items_of
from webapp.judges.models import Judge, JudgeAnswer, JudgeCall, JudgeJob
from webapp.judges.protocol import PAIRWISE, Setup
from webapp.judges.results import judged
from webapp.runs.models import Run


@dataclass(frozen=True)
class Usage:
    """What calls came to. `seconds` and `cost_per_call` are means of one call; None before the first."""

    calls: int
    cost: float
    tokens_in: int
    tokens_out: int
    unusable: int
    seconds: float | None

    @property
    def cost_per_call(self) -> float | None:
        return self.cost / self.calls if self.calls else None


@dataclass(frozen=True)
class Shown:
    """A judged item for a page: the answers in the order in which they were asked."""

    item: Item
    answers: list[JudgeAnswer | None]
    outcome: str
    people: str


def judges_of(project: Project, *, archived: bool = False) -> QuerySet[Judge]:
    judges = Judge.objects.filter(project=project, archived_at__isnull=not archived)
    return judges.select_related("own_model__project", "created_by", "project")


SUMS: Final = {
    "n": Count("id"),
    "cost": Sum("cost"),
    "read": Sum("tokens_in"),
    "written": Sum("tokens_out"),
    "unusable": Count("id", filter=Q(usable=False)),
    "seconds": Avg("seconds"),
}
NO_CALLS: Final[dict[str, Any]] = {"n": 0, "unusable": 0} | dict.fromkeys(("cost", "read", "written", "seconds"))


def usage(calls: QuerySet[JudgeCall]) -> Usage:
    return summed(calls.aggregate(**SUMS))


def usage_by_judge(judges: Sequence[Judge]) -> dict[int, Usage]:
    """By the judges' ids, those that were never asked too."""
    rows = JudgeCall.objects.filter(judge__in=judges).order_by().values("judge").annotate(**SUMS)
    sums = {row["judge"]: row for row in rows}
    return {judge.pk: summed(sums.get(judge.pk, NO_CALLS)) for judge in judges}


def summed(sums: Mapping[str, Any]) -> Usage:
    return Usage(
        sums["n"], sums["cost"] or 0.0, sums["read"] or 0, sums["written"] or 0, sums["unusable"], sums["seconds"]
    )


def comparable_runs(project: Project) -> QuerySet[Run]:
    """Runs that kept replies to judge, newest first."""
    runs = Run.objects.filter(project=project, state=Run.State.SUCCEEDED, outputs__has_key="samples.jsonl")
    return runs.filter(stage__in=["evaluate", "sample"]).order_by("-id")


def jobs_of(judge: Judge) -> QuerySet[JudgeJob]:
    return JudgeJob.objects.filter(judge=judge).select_related("run", "created_by", "judge__project")


def last_agreement(judge: Judge) -> JudgeJob | None:
    return jobs_of(judge).filter(kind=JudgeJob.Kind.AGREEMENT, state=JudgeJob.State.DONE).first()


def last_agreements(judges: Sequence[Judge]) -> dict[int, JudgeJob]:
    """The newest measured agreement with people of each judge that has one, by the judges' ids."""
    done = JudgeJob.objects.filter(judge__in=judges, kind=JudgeJob.Kind.AGREEMENT, state=JudgeJob.State.DONE)
    return {job.judge_id: job for job in done.order_by("judge_id", "-id").distinct("judge_id")}


def shown_items(job: JudgeJob, start: int, end: int) -> tuple[list[Shown], int]:
    """Items from start to end with what was said of them, and how many there are. Raises as items_of does."""
    setup, all_items = Setup(**job.setup), items_of(job).items
    items = all_items[start:end]
    answers = known_answers(job.judge, setup, [question for item in items for question in item.questions(setup)])
    rows_of_page = []
    for item in items:
        item_answers = [answers.get(question.key(setup)) for question in item.questions(setup)]
        rows_of_page.append(Shown(item, item_answers, outcome_of(item, setup, answers), people_of(item)))
    return rows_of_page, len(all_items)


def outcome_of(item: Item, setup: Setup, answers: dict[str, JudgeAnswer]) -> str:
    row = judged(item, setup, answers)
    if row is None:
        item_answers = [answers.get(question.key(setup)) for question in item.questions(setup)]
        return "unusable" if any(answer and not answer.usable for answer in item_answers) else "not asked yet"
    if setup.mode != PAIRWISE and len(item.replies) == 1:
        return f"{row.scores[0]:g} of 10"
    if row.flipped:
        return "tie: the order decided"
    return {1: "A is better", -1: "B is better", 0: "tie"}[row.word]


def people_of(item: Item) -> str:
    """What people said of a ranked pair, in a few words."""
    words: list[Any] = list(item.words.values())
    phrases = [f"{words.count(word)} for {name}" for word, name in ((1, "A"), (-1, "B"), (0, "a tie")) if word in words]
    return ", ".join(phrases)
