"""What people may ask of runs, and what they are told where it does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from tests import factories
from training.contract import DeviceReport
from webapp.accounts.models import Project
from webapp.datasets.models import Snapshot
from webapp.errors import BadInput, Conflict
from webapp.registry.models import ModelVersion
from webapp.runs.machines import save_report
from webapp.runs.models import Run
from webapp.runs.services import launch_run, request_stop, resume_run, retry

pytestmark = pytest.mark.django_db
Kind = ModelVersion.Kind


def launch(project: Project, stage: str, **inputs: Any) -> Run:
    return launch_run(project=project, stage=stage, by=project.created_by, **inputs)


@pytest.fixture
def rankings(project: Project) -> Snapshot:
    return factories.snapshot(project, Snapshot.Kind.RANKINGS, counts={"train": 30, "heldout": 5, "characters": 900})


@pytest.fixture
def base(project: Project) -> ModelVersion:
    return factories.model_version(project)


def test_a_run_takes_the_contract_s_defaults_and_the_next_number(
    project: Project, rankings: Snapshot, base: ModelVersion
) -> None:
    first = launch(project, "reward", snapshots=[rankings], base=base)
    second = launch(project, "reward", snapshots=[rankings], base=base, config={"epochs": 2})
    assert (first.number, second.number) == (1, 2)
    assert (first.config["epochs"], second.config["epochs"]) == (1.0, 2.0)
    assert first.config["lora"]["rank"] == 0
    assert first.name == "reward 1"
    assert first.state == Run.State.QUEUED


@pytest.mark.parametrize("kinds", [["rankings"], ["judgments"], ["rankings", "judgments"]])
def test_kto_learns_from_rankings_from_judgments_or_from_both(
    project: Project, base: ModelVersion, kinds: list[str]
) -> None:
    snapshots = [factories.snapshot(project, Snapshot.Kind(kind), counts={"train": 20, "heldout": 0}) for kind in kinds]
    assert launch(project, "kto", snapshots=snapshots, base=base).snapshots.count() == len(kinds)


def test_kto_counts_rankings_and_judgments_together(project: Project, base: ModelVersion) -> None:
    some = [
        factories.snapshot(project, Snapshot.Kind(kind), counts={"train": 12, "heldout": 0})
        for kind in ("rankings", "judgments")
    ]
    launch(project, "kto", snapshots=some, base=base)
    with pytest.raises(BadInput, match="12 judgments in the snapshot, at least 20 are needed"):
        launch(project, "kto", snapshots=some[1:], base=base)


def test_kto_without_any_label_says_what_it_learns_from(project: Project, base: ModelVersion) -> None:
    with pytest.raises(BadInput, match="kto learns from rankings and judgments"):
        launch(project, "kto", base=base)


def test_an_unknown_setting_is_named(project: Project, rankings: Snapshot, base: ModelVersion) -> None:
    with pytest.raises(BadInput, match="learning_rat: is not a known setting"):
        launch(project, "reward", snapshots=[rankings], base=base, config={"learning_rat": 1e-3})
    with pytest.raises(BadInput, match=r"lora\.rang: is not a known setting"):
        launch(project, "reward", snapshots=[rankings], base=base, config={"lora": {"rang": 8}})


def test_a_path_cannot_be_slipped_in_among_the_settings(project: Project, rankings: Snapshot) -> None:
    with pytest.raises(BadInput, match="base: choose the model as an input"):
        launch(project, "reward", snapshots=[rankings], config={"base": "/etc"})


def test_a_snapshot_with_too_few_rows_is_refused_at_once(project: Project, base: ModelVersion) -> None:
    few = factories.snapshot(project, Snapshot.Kind.RANKINGS, counts={"train": 3, "heldout": 0})
    with pytest.raises(BadInput) as told:
        launch(project, "reward", snapshots=[few], base=base)
    assert told.value.message == "reward: 3 rankings in the snapshot, at least 20 are needed"
    assert told.value.error_code == "too_few_rows"


def test_a_missing_input_is_named_with_the_way_to_get_it(
    project: Project, rankings: Snapshot, base: ModelVersion
) -> None:
    with pytest.raises(BadInput, match="rankings: reward cannot start without it"):
        launch(project, "reward", base=base)
    with pytest.raises(BadInput, match="base: reward cannot start without it"):
        launch(project, "reward", snapshots=[rankings])
    done = factories.run(project, "corpus", state=Run.State.SUCCEEDED)
    with pytest.raises(BadInput, match="tokenizer: choose a tokenizer, or a model to go on from"):
        launch(project, "pretrain", corpus_run=done)


@pytest.mark.parametrize(("field", "kind"), [("base", Kind.REWARD), ("base", Kind.TOKENIZER)])
def test_a_model_of_the_wrong_kind_is_refused(project: Project, rankings: Snapshot, field: str, kind: Kind) -> None:
    with pytest.raises(BadInput, match=f"{field}: .* is needed"):
        launch(project, "reward", snapshots=[rankings], **{field: factories.model_version(project, kind)})


def test_nothing_of_another_project_is_taken(project: Project, rankings: Snapshot, base: ModelVersion) -> None:
    other = factories.project()
    with pytest.raises(BadInput, match="belongs to another project"):
        launch(project, "reward", snapshots=[rankings], base=factories.model_version(other))
    with pytest.raises(BadInput, match="belongs to another project"):
        launch(project, "reward", snapshots=[factories.snapshot(other, Snapshot.Kind.RANKINGS)], base=base)


def test_an_input_that_the_stage_does_not_take_is_refused(
    project: Project, rankings: Snapshot, base: ModelVersion
) -> None:
    with pytest.raises(BadInput, match="baseline: reward does not take one"):
        launch(project, "reward", snapshots=[rankings], base=base, baseline=base)


def test_evaluation_wants_rows_that_were_held_out(project: Project, base: ModelVersion) -> None:
    seen = factories.snapshot(project, Snapshot.Kind.PROMPTS, counts={"train": 50, "heldout": 0})
    with pytest.raises(BadInput, match="evaluate: no prompts held out in the snapshot"):
        launch(project, "evaluate", snapshots=[seen], base=base)


def test_a_queued_run_stops_at_once_and_a_running_one_is_asked(project: Project) -> None:
    queued = factories.run(project)
    running = factories.run(project, state=Run.State.RUNNING)
    for run in (queued, running):
        request_stop(run=run, by=project.created_by)
        run.refresh_from_db()
    assert queued.state == Run.State.CANCELLED
    assert (running.state, running.stopping) == (Run.State.RUNNING, True)


def test_what_has_ended_cannot_be_stopped(project: Project) -> None:
    with pytest.raises(Conflict, match="has ended already"):
        request_stop(run=factories.run(project, state=Run.State.SUCCEEDED), by=project.created_by)


def test_a_failed_run_is_resumed_with_a_clean_slate(project: Project) -> None:
    run = factories.run(project, state=Run.State.FAILED, error="It broke.", attempts=5)
    resume_run(run=run, by=project.created_by)
    run.refresh_from_db()
    assert (run.state, run.error, run.attempts) == (Run.State.QUEUED, "", 0)
    with pytest.raises(Conflict, match="only a stopped or failed run can be resumed"):
        resume_run(run=run, by=project.created_by)


def test_a_retry_is_a_new_run_of_the_same_inputs(project: Project, rankings: Snapshot, base: ModelVersion) -> None:
    run = launch(project, "reward", snapshots=[rankings], base=base, config={"epochs": 3})
    Run.objects.filter(pk=run.pk).update(state=Run.State.FAILED)
    again = retry(run=Run.objects.get(pk=run.pk), by=project.created_by)
    assert again.pk != run.pk
    assert (again.config, again.base, list(again.snapshots.all())) == (run.config, base, [rankings])


def test_a_launch_freezes_the_rows_it_learns_from(project: Project, base: ModelVersion) -> None:
    factories.ranking(project, project.created_by)
    run = launch(project, "reward", freeze=["rankings"], base=base, config={"min_rows": 1})
    assert run.snapshots.get().counts["train"] == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "at least 20 are needed"),
        ({"config": {"min_rows": 1}, "base": None}, "base: reward cannot start without it"),
        ({"config": {"min_rows": 1}, "name": "x" * 101}, "at most 100 characters"),
    ],
)
def test_a_refused_launch_leaves_no_snapshot_behind(
    project: Project, base: ModelVersion, inputs: dict[str, Any], message: str
) -> None:
    factories.ranking(project, project.created_by)
    with pytest.raises((BadInput, ValidationError), match=message):
        launch(project, "reward", freeze=["rankings"], **({"base": base} | inputs))
    assert not Snapshot.objects.exists()


def test_a_kind_without_rows_cannot_be_frozen(project: Project, base: ModelVersion) -> None:
    with pytest.raises(Conflict, match="There are no rankings yet"):
        launch(project, "reward", freeze=["rankings"], base=base)
    with pytest.raises(BadInput, match="reward does not take a snapshot of prompts"):
        launch(project, "reward", freeze=["prompts"], base=base)


def test_a_model_of_the_project_is_not_added_again(project: Project, base: ModelVersion) -> None:
    with pytest.raises(BadInput, match="in the project already"):
        launch(project, "add", base=base)
    with pytest.raises(BadInput, match="base: add cannot start without it"):
        launch(project, "add")


def test_a_tracker_that_no_training_machine_has_is_refused(
    project: Project, rankings: Snapshot, base: ModelVersion
) -> None:
    settings = {"report_to": ["mlflow", "trackio"]}
    launch(project, "reward", snapshots=[rankings], base=base, config=settings)  # no machine has said what it has
    report = DeviceReport(kind="cpu", name="a laptop", memory=10**9, trackers=["mlflow"])
    save_report(report, host="laptop")
    with pytest.raises(BadInput, match=r"report_to: trackio cannot be imported .* pip install trackio"):
        launch(project, "reward", snapshots=[rankings], base=base, config=settings)
    save_report(report.model_copy(update={"trackers": ["trackio"]}), host="server")
    launch(project, "reward", snapshots=[rankings], base=base, config=settings)


def test_more_processes_than_the_machine_has_devices_are_refused(
    project: Project, rankings: Snapshot, base: ModelVersion
) -> None:
    def launched(processes: int, **config: Any) -> Run:
        return launch(project, "reward", snapshots=[rankings], base=base, config={"processes": processes, **config})

    assert launched(8).config["processes"] == 8, "no machine has said yet what it has"
    gpus = DeviceReport(kind="cuda", name="a GPU", memory=24 << 30, count=2)
    save_report(gpus.model_copy(update={"count": 1}), host="small")
    with pytest.raises(BadInput, match=r"the training machine has one device\. Set it to 1 or less"):
        launched(2)
    save_report(gpus, host="box")
    assert launched(2, shard=True).config["shard"] is True
    with pytest.raises(BadInput, match="3 are asked for, and the training machine has 2 devices"):
        launched(3)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"shard": True}, "one process has nothing to share"),
        ({"shard": True, "processes": 2, "optimizer": "adamw_8bit"}, "moments in 8 bits"),
        ({"shard": True, "processes": 2, "lora": {"rank": 4, "load_in_4bit": True}}, "weights in 4 bits"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    project: Project, rankings: Snapshot, base: ModelVersion, config: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        launch(project, "reward", snapshots=[rankings], base=base, config=config)
