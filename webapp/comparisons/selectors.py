"""Reads of blind comparisons."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from annotations.models import Lease, Task
from webapp.accounts.models import Project
from webapp.comparisons.models import Comparison, Pair
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import models_of
from webapp.runs.models import Run

State = Comparison.State
ASKED = Task.objects.filter(compared_pair__comparison=OuterRef("pk"), state=Task.State.OPEN)
COMPARISONS = Comparison.objects.select_related(
    "project", "run__base", "run__baseline", "run__project", "created_by"
).annotate(is_asked=Exists(ASKED))


@dataclass(frozen=True)
class Progress:
    """Judgments wanted, and given. `equal`: pairs of equal replies, which are ties without being asked about."""

    pairs: int
    equal: int
    wanted: int
    given: int


def comparisons_of(project: Project) -> QuerySet[Comparison]:
    return COMPARISONS.filter(project=project)


def open_comparisons() -> QuerySet[Comparison]:
    """All whose pairs went to people."""
    return COMPARISONS.filter(opened_at__isnull=False)


def state_of(comparison: Comparison) -> Comparison.State:
    if comparison.error:
        return State.FAILED
    if comparison.stopped_at is not None:
        return State.STOPPED
    if comparison.opened_at is None:
        ended_badly = comparison.run.state in (Run.State.FAILED, Run.State.CANCELLED)
        return State.FAILED if ended_badly else State.SAMPLING
    is_asked = getattr(comparison, "is_asked", None)  # annotated in COMPARISONS
    if is_asked is None:
        is_asked = Task.objects.filter(compared_pair__comparison=comparison, state=Task.State.OPEN).exists()
    return State.JUDGING if is_asked else State.DONE


def has_ended(comparison: Comparison) -> bool:
    """Whether its result is shown: while people judge, nobody is to be swayed by what others said."""
    return comparison.opened_at is not None and state_of(comparison) in (State.DONE, State.STOPPED)


def progress_of(comparison: Comparison) -> Progress:
    pairs = live_pairs(comparison).aggregate(n=Count("id"), equal=Count("id", filter=Q(task=None)))
    given = Lease.objects.filter(
        task__compared_pair__comparison=comparison,
        task__prompt__withdrawn_at=None,
        outcome=Lease.Outcome.SUBMITTED,
        seat__isnull=False,
    ).count()
    return Progress(pairs["n"], pairs["equal"], (pairs["n"] - pairs["equal"]) * comparison.overlap, given)


def live_pairs(comparison: Comparison) -> QuerySet[Pair]:
    """Without those whose prompt was withdrawn, or deleted by who wrote it."""
    return comparison.pairs.filter(prompt__withdrawn_at=None)


def comparable_models(model: ModelVersion) -> QuerySet[ModelVersion]:
    """What a model can be compared with."""
    kinds = (ModelVersion.Kind.FULL, ModelVersion.Kind.ADAPTER)
    return models_of(model.project).filter(kind__in=kinds).exclude(pk=model.pk)
