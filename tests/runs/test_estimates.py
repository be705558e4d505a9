"""How long a run is said to take."""

from __future__ import annotations

import pytest

from tests import factories
from webapp.accounts.models import Project
from webapp.datasets.models import Snapshot
from webapp.runs.estimates import estimate, work_of
from webapp.runs.models import Run
from webapp.runs.stages import settings_of

pytestmark = pytest.mark.django_db


def test_an_ensemble_is_the_work_of_its_members(project: Project) -> None:
    rankings = factories.snapshot(
        project, Snapshot.Kind.RANKINGS, counts={"train": 900, "heldout": 100, "characters": 80_000}
    )
    base = factories.model_version(project, parameters=1_000_000)
    one, three = (
        work_of("reward", settings_of("reward", {"ensemble": members}), [rankings], None, base) for members in (1, 3)
    )
    assert one == 6 * 1_000_000 * 80_000 / 4
    assert three == 3 * one


def test_a_run_that_had_nothing_to_read_does_not_break_the_next_estimate(project: Project) -> None:
    model = factories.model_version(project, parameters=1_000_000)
    before = factories.run(project, stage="evaluate", state=Run.State.SUCCEEDED, base=model)
    before.result = {"seconds": {"total": 30.0}}
    before.save()
    found = estimate(project, "evaluate", settings_of("evaluate", {}), snapshots=[], corpus_run=None, base=model)
    assert found.seconds > 0
    assert not found.measured


def test_a_run_of_an_earlier_version_does_not_break_the_next_estimate(project: Project) -> None:
    model = factories.model_version(project, parameters=1_000_000)
    before = factories.run(project, stage="dpo", state=Run.State.SUCCEEDED, base=model)
    before.config = {"lora": {"rank": 4, "dropout": 0.1}}  # refused by now
    before.result = {"seconds": {"total": 30.0}}
    before.save()
    found = estimate(project, "dpo", settings_of("dpo", {}), snapshots=[], corpus_run=None, base=model)
    assert not found.measured
