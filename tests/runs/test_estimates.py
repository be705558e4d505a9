"""How long a run is said to take."""

from __future__ import annotations

import pytest

from tests import factories
from tests.narrowing import existing
from training.contract import DeviceReport
from webapp.accounts.models import Project
from webapp.datasets.models import Snapshot
from webapp.registry.models import ModelVersion
from webapp.runs.estimates import (
    CODE_SECONDS,
    LARGE_RULE,
    NOTHING,
    RULE_OF_THUMB,
    SERVER_SECONDS,
    START,
    Estimate,
    estimate,
    work_of,
)
from webapp.runs.machines import save_report
from webapp.runs.models import Run
from webapp.runs.proposals import unfrozen_rows
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
    assert existing(found.seconds) > 0
    assert not found.measured


def test_a_run_of_an_earlier_version_does_not_break_the_next_estimate(project: Project) -> None:
    model = factories.model_version(project, parameters=1_000_000)
    before = factories.run(project, stage="dpo", state=Run.State.SUCCEEDED, base=model)
    before.config = {"lora": {"rank": 4, "dropout": 0.1}}  # refused by now
    before.result = {"seconds": {"total": 30.0}}
    before.save()
    found = estimate(project, "dpo", settings_of("dpo", {}), snapshots=[], corpus_run=None, base=model)
    assert not found.measured


def test_real_models_are_estimated_for_the_cores_of_the_machine_and_gpus_by_their_own_runs(project: Project) -> None:
    rows = factories.snapshot(project, counts={"train": 90, "heldout": 10, "characters": 400_000})
    small, real = (factories.model_version(project, parameters=n) for n in (1_000_000, 135_000_000))

    def seconds(model: ModelVersion) -> float | None:
        config = settings_of("sft", {"epochs": 1})
        return estimate(project, "sft", config, snapshots=[rows], corpus_run=None, base=model).seconds

    work = 6 * 100_000  # for each parameter: 400,000 characters are 100,000 tokens
    assert seconds(small) == START + work * 1_000_000 / RULE_OF_THUMB
    assert seconds(real) == START + work * 135_000_000 / LARGE_RULE
    save_report(DeviceReport(kind="cpu", name="a laptop", memory=16 * 10**9, cores=8))
    assert seconds(real) == START + work * 135_000_000 / (4 * LARGE_RULE)
    save_report(DeviceReport(kind="cuda", name="a GPU", memory=24 * 10**9), host="box")
    assert seconds(real) is None
    assert seconds(small) is not None
    run = factories.run(project, "sft", state=Run.State.SUCCEEDED, base=real, config=settings_of("sft", {"epochs": 1}))
    run.snapshots.add(rows)
    Run.objects.filter(pk=run.pk).update(result={"seconds": {"total": 100.0}})
    assert seconds(real) == pytest.approx(100)


def test_replies_to_prompts_that_no_snapshot_has_yet_are_counted(project: Project) -> None:
    model = factories.model_version(project, parameters=135_000_000)
    for split in ("train", "train", "heldout"):
        factories.prompt(project, split=split)
    unfrozen = unfrozen_rows(project, ["prompts"])
    assert (unfrozen.train, unfrozen.heldout) == (2, 1)
    frozen = factories.snapshot(project, Snapshot.Kind.PROMPTS, counts={"train": 2, "heldout": 1, "characters": 99})
    for stage in ("sample", "evaluate"):
        config = settings_of(stage, {"replies": 4} if stage == "sample" else {})
        found = [
            estimate(project, stage, config, snapshots=snapshots, corpus_run=None, base=model, unfrozen=rows).seconds
            for snapshots, rows in (([frozen], NOTHING), ([], unfrozen))
        ]
        assert existing(found[0]) == existing(found[1]) > START


def test_rewards_that_take_time_are_counted(project: Project) -> None:
    model = factories.model_version(project, parameters=1_000_000)
    prompts = factories.snapshot(project, Snapshot.Kind.PROMPTS, counts={"train": 1, "heldout": 0, "characters": 99})
    plain = {"steps": 10, "prompts_per_step": 8, "samples_per_prompt": 2}

    def found(*rewards: dict[str, str]) -> Estimate:
        config = settings_of("grpo", plain | {"rewards": rewards} if rewards else plain)
        return estimate(project, "grpo", config, snapshots=[prompts], corpus_run=None, base=model)

    assert found({"kind": "exact"}).seconds == found().seconds
    assert found({"kind": "exact"}).rewards == 0
    for kind, each in (({"kind": "code"}, CODE_SECONDS), ({"kind": "url", "url": "https://x.org/"}, SERVER_SECONDS)):
        assert found(kind).rewards == pytest.approx(160 * each)
        assert existing(found(kind).seconds) == pytest.approx(existing(found().seconds) + 160 * each)
    before = factories.run(project, "grpo", state=Run.State.SUCCEEDED, base=model)
    before.config = settings_of("grpo", plain | {"rewards": [{"kind": "code"}]})
    before.result = {"seconds": {"total": 500.0, "score": 320.0}}
    before.save()
    measured = found({"kind": "code"})
    assert measured.measured
    assert measured.rewards == pytest.approx(320)  # 2 seconds a reply
    assert measured.seconds == pytest.approx(500)
    assert found().seconds == pytest.approx(180)  # without what its rewards took
