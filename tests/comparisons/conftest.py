"""Two models that have replied to the same prompts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from annotations.models import Lease, Ranking
from annotations.services.labels import submit_ranking
from annotations.services.leases import lease_next
from tests import factories
from tests.judges.conftest import evaluate_run
from webapp.accounts.models import Project, User
from webapp.comparisons.models import Comparison, Pair
from webapp.comparisons.selectors import COMPARISONS
from webapp.comparisons.services import compare_run
from webapp.runs.models import Run

REPLIES = [(f"A good answer to number {n}.", f"Bad {n}.") for n in range(4)]


@pytest.fixture(autouse=True)
def places(data_folders: Path) -> Path:
    return data_folders


def compared_run(project: Project, replies: Sequence[tuple[str, str]] = REPLIES) -> Run:
    model = factories.model_version(project, name="new")
    run = evaluate_run(project, list(replies), base=model)
    run.baseline = factories.model_version(project, name="old")
    run.save()
    return run


def comparison_of(project: Project, replies: Sequence[tuple[str, str]] = REPLIES, **asking: Any) -> Comparison:
    comparison = compare_run(run=compared_run(project, replies), by=project.created_by, **asking)
    return again(comparison)


def again(comparison: Comparison) -> Comparison:
    """As it is in the database now."""
    return COMPARISONS.get(pk=comparison.pk)


def judge_pair(lease: Lease, word: int) -> Ranking:
    """Say what `word` does: 1 for the reply of the model, -1 for the other one, 0 for a tie."""
    pair = Pair.objects.get(task=lease.task)
    order = [pair.reply_id, pair.other_reply_id][:: -1 if word < 0 else 1]
    groups = [[pk] for pk in order] if word else [order]
    return submit_ranking(lease=lease, token=uuid.uuid4(), groups=groups)


def judge_next(project: Project, person: User, word: int) -> Ranking:
    lease = lease_next(person=person, project=project)
    assert lease is not None
    return judge_pair(lease, word)
