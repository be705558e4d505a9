"""Runs seen through by real child processes."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from annotations.models import Prompt, Task
from tests import factories
from tests.narrowing import existing
from tests.runs.conftest import SMALL
from tests.training.toys import CHATML, foreign_policy, foreign_tokenizer
from webapp import jobs
from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot
from webapp.datasets.services import create_snapshot
from webapp.registry.artefacts import local_folder
from webapp.registry.models import ModelVersion
from webapp.runs import execution
from webapp.runs.execution import execute
from webapp.runs.folders import folder_of
from webapp.runs.lineage import models_that_learned_from
from webapp.runs.management import waiting
from webapp.runs.models import Evaluation, Run
from webapp.runs.selectors import run_samples
from webapp.runs.services import import_samples, launch_run, read_events, request_stop, resume_run

pytestmark = pytest.mark.django_db(transaction=True)
Done = Callable[..., Run]
STEPS = 300


@pytest.fixture
def prompts(project: Project) -> Snapshot:
    for words in ("Where is the kite?", "Where is the boat?", "Where is the lamp?"):
        factories.prompt(project, words)
    factories.prompt(project, "Where is the drum?", split=Prompt.Split.HELDOUT)
    return create_snapshot(project=project, kind="prompts", by=project.created_by)


@pytest.mark.slow
def test_text_becomes_a_base_model_with_its_figures_and_its_curve(pretrained: Run, text: Snapshot) -> None:
    model = pretrained.output
    assert model is not None
    assert model.kind == "full"
    assert existing(model.parameters) > 1000
    assert set(model.files) >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert pretrained.metrics.filter(name="loss").count() >= 1
    assert model.evaluations.count() == len(pretrained.result["metrics"])
    assert existing(pretrained.corpus_run).snapshots.get() == text


def test_cleaned_text_is_kept_for_the_stages_that_read_it(corpus_run: Run) -> None:
    assert {"corpus.jsonl", "heldout.jsonl"} <= set(corpus_run.outputs)
    assert corpus_run.result["counts"]
    assert not list(folder_of(corpus_run).glob("checkpoint-*"))


def test_replies_become_tasks_to_rank_once(done: Done, base: ModelVersion, prompts: Snapshot) -> None:
    config = {"replies": 3, "threads": 1, "sampling": {"max_new_tokens": 8, "temperature": 2.0}}
    run = done("sample", base=base, snapshots=[prompts], config=config)
    assert run.state == Run.State.SUCCEEDED, run.error
    replies = list(run_samples(run))
    assert len(replies) == 12, "three replies to each of four prompts, the held-out one among them"
    assert import_samples(run=run) == 4
    assert import_samples(run=run) == 0
    assert Task.objects.filter(kind=Task.Kind.RANK, source_ref=f"run:{run.pk}").count() == 4
    assert {response.model for task in Task.objects.all() for response in task.responses.all()} == {base}


@pytest.mark.slow
def test_demonstrations_make_a_child_of_the_base(done: Done, base: ModelVersion, project: Project, ann: User) -> None:
    for _ in range(4):
        factories.demonstration(project, ann, "It is near the tree.", state="accepted")
    shown = create_snapshot(project=project, kind="demonstrations", by=project.created_by)
    run = done("sft", base=base, snapshots=[shown], config={"max_steps": 2, "batch_tokens": 128, "threads": 1})
    assert run.state == Run.State.SUCCEEDED, run.error
    assert existing(run.output).parent == base
    assert local_folder(existing(run.output)).is_dir()
    assert not (folder_of(run) / "model").exists(), "the store has it, the run folder need not"


@pytest.mark.slow
def test_two_processes_that_are_stopped_and_resumed_learn_what_one_learns(
    done: Done, project: Project, base: ModelVersion, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_CPU_PROCESSES", "1")
    for number in range(6):
        factories.demonstration(project, ann, f"It is near tree {number}.", state="accepted")
    shown = create_snapshot(project=project, kind="demonstrations", by=project.created_by)
    config = {"epochs": 12.0, "batch_tokens": 128, "micro_tokens": 64, "threads": 1, "log_every": 1}
    alone = done("sft", base=base, snapshots=[shown], config=config)
    assert alone.state == Run.State.SUCCEEDED, alone.error

    run = launch_run(
        project=project, stage="sft", by=project.created_by, base=base, snapshots=[shown],
        config=config | {"processes": 2},
    )  # fmt: skip
    follow = execution.follow

    def stop_soon(run: Run, *rest: Any) -> None:
        def ask() -> None:
            while not run.metrics.filter(name="loss").exists():
                time.sleep(0.05)
            request_stop(run=run, by=project.created_by)
            connection.close()

        asking = threading.Thread(target=ask)
        asking.start()
        follow(run, *rest)
        asking.join()

    monkeypatch.setattr(execution, "follow", stop_soon)
    assert execute(run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.CANCELLED, "")
    assert list(folder_of(run).glob("checkpoint-*")), "it went on from there, not from its start"

    monkeypatch.setattr(execution, "follow", follow)
    resume_run(run=run, by=project.created_by)
    assert execute(run.pk)
    run.refresh_from_db()
    assert run.state == Run.State.SUCCEEDED, run.error
    assert run.result["device"].endswith("2 processes")
    assert run.result["metrics"]["steps"] == alone.result["metrics"]["steps"]
    weights = [load_file(local_folder(existing(each.output)) / "model.safetensors") for each in (alone, run)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=5e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [["judgments"], ["rankings", "judgments"]])
def test_kto_learns_from_imported_judgments_and_measures_the_held_out_ones(
    done: Done, base: ModelVersion, project: Project, ann: User, kinds: list[str]
) -> None:
    for number in range(8):
        prompt = factories.prompt(project, split=Prompt.Split.HELDOUT if number < 2 else Prompt.Split.TRAIN)
        factories.judgment(project, ann, "It is near the tree.", prompt=prompt, good=number % 2 == 0)
        task = factories.task(project, Task.Kind.RANK, prompt=prompt, replies=2)
        factories.ranking(project, ann, task=task)
    shown = [create_snapshot(project=project, kind=kind, by=project.created_by) for kind in kinds]
    config = {"max_steps": 2, "batch_tokens": 128, "threads": 1, "min_rows": 1}
    run = done("kto", base=base, snapshots=shown, config=config)
    assert run.state == Run.State.SUCCEEDED, run.error
    counts = run.result["counts"]
    assert (counts["judgments"], counts["heldout_judgments"]) == (6, 2)
    assert (counts["rankings"], counts["heldout"]) == ((6, 2) if "rankings" in kinds else (0, 0))
    label = existing(project.prompts.filter(split="train", judgments__isnull=False).first()).judgments.get()
    assert run.output in models_that_learned_from("judgment", label.pk)


def test_a_setting_that_the_stage_does_not_know_fails_with_its_name(project: Project, text: Snapshot) -> None:
    run = factories.run(project, "corpus", config={"stage": "corpus", "min_char": 3})
    run.snapshots.add(text)
    execution.execute(run.pk)
    run.refresh_from_db()
    assert (run.state, run.error_code) == (Run.State.FAILED, "config_invalid")
    assert "min_char: is not a known setting" in run.error


def test_too_few_rows_fail_with_how_many_are_needed(
    done: Done, project: Project, base: ModelVersion, ann: User
) -> None:
    factories.ranking(project, ann)
    few = create_snapshot(project=project, kind="rankings", by=project.created_by)
    run = factories.run(project, "reward", base=base, config={"stage": "reward", "threads": 1})
    run.snapshots.add(few)
    execution.execute(run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.FAILED, "reward: 1 rankings in the snapshot, at least 20 are needed")


def test_a_damaged_model_is_named_before_anything_starts(done: Done, base: ModelVersion, prompts: Snapshot) -> None:
    weights = local_folder(base) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    run = done("sample", base=base, snapshots=[prompts])
    assert (run.state, run.error_code) == (Run.State.FAILED, "damaged")
    assert f"{weights} is not the file that was registered" in run.error
    assert run.child == ""


class FullDisk(LocalFileSystem):
    """A store on which no byte fits."""

    protocol = "full"

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "w" in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return super()._open(path, mode, **kwargs)


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(
    done: Done, text: Snapshot, settings: Any, places: Path
) -> None:
    register_implementation("full", FullDisk, clobber=True)
    roomy, settings.ARTEFACTS_URL = settings.ARTEFACTS_URL, f"full://{places}/full"
    run = done("corpus", snapshots=[text])
    assert (run.state, run.error_code) == (Run.State.FAILED, "disk_full")
    assert "is full: free some space" in run.error
    settings.ARTEFACTS_URL = roomy
    Run.objects.filter(pk=run.pk).update(state=Run.State.QUEUED)
    execution.execute(run.pk)
    run.refresh_from_db()
    assert run.state == Run.State.SUCCEEDED, run.error
    assert run.events.filter(type="done").count() >= 1


def test_a_child_that_is_killed_is_started_again(
    project: Project, text: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "environment", lambda: {"PATH": "/nowhere"} | killer(text))
    run = factories.run(project, "corpus", config={"stage": "corpus"})
    run.snapshots.add(text)
    execution.execute(run.pk)
    run.refresh_from_db()
    assert (run.state, run.attempts) == (Run.State.QUEUED, 1)


def killer(snapshot: Snapshot) -> dict[str, str]:
    """An environment in which Python kills itself as it starts."""
    folder = Path(snapshot.files["train"].removeprefix("file://")).parent / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    return {"PYTHONPATH": str(folder)}


def test_a_training_process_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "DATABASE_URL", "REDIS_URL", "SECRET_KEY", "MODEL_SERVER_TOKEN", "EMAIL_URL",
        "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "GITHUB_TOKEN", "WANDB_API_KEY",
    )  # fmt: skip
    for name in names:
        monkeypatch.setenv(name, "secret")
    assert "secret" not in execution.environment().values()


def test_a_run_gets_the_credentials_of_the_trackers_that_it_reports_to(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "of wandb")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of mlflow")
    run = factories.run(project, "sft", config={"stage": "sft", "report_to": ["mlflow"]})
    assert execution.tracker_access(run) == {
        "MLFLOW_TRACKING_TOKEN": "of mlflow", "TUTELAGE_PROJECT": project.slug, "TUTELAGE_RUN_NAME": run.name,
    }  # fmt: skip
    assert execution.tracker_access(factories.run(project, "sft", config={"stage": "sft", "report_to": []})) == {}
    assert not {"WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN"} & execution.environment().keys()


def test_a_training_process_learns_how_to_use_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch of our kernels, their compiler and cache, and what torch and the hub's client go by."""
    names = (
        "TUTELAGE_KERNELS", "CXX", "CXXFLAGS", "XDG_CACHE_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
        "HTTPS_PROXY",
    )  # fmt: skip
    for name in names:
        monkeypatch.setenv(name, f"value of {name}")
    passed = execution.environment()
    assert {name: passed.get(name) for name in names} == {name: f"value of {name}" for name in names}


@pytest.mark.slow
def test_a_run_asked_to_stop_writes_a_checkpoint_and_is_resumed_from_it(
    project: Project, cleaned: Run, tokenizer: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped as soon as it has taken a step; started again, it goes on from there."""
    config = SMALL | {"stage": "pretrain", "max_steps": STEPS, "epochs": 1000, "log_every": 1}
    run = factories.run(project, "pretrain", corpus_run=cleaned, tokenizer=tokenizer, config=config)
    read = read_events

    def read_and_stop(of: Run, *rest: Any) -> bool:
        found = read(of, *rest)
        if found and of.metrics.filter(name="loss").exists():
            request_stop(run=of, by=project.created_by)
        return found

    monkeypatch.setattr(jobs, "BEAT_SECONDS", 0.05)
    with monkeypatch.context() as watched:
        watched.setattr(execution, "read_events", read_and_stop)
        execution.execute(run.pk)
    run.refresh_from_db()
    assert run.state == Run.State.CANCELLED, run.error
    stopped_at = run.metrics.filter(name="loss").count()
    assert 0 < stopped_at < STEPS
    Run.objects.filter(pk=run.pk).update(state=Run.State.QUEUED, stop_requested_at=None)
    execution.execute(run.pk)
    run.refresh_from_db()
    assert run.state == Run.State.SUCCEEDED, run.error
    events = [json.loads(line) for line in (folder_of(run) / "events.jsonl").read_text().splitlines()]
    steps = [event["step"] for event in events if event["type"] == "metric" and "loss" in event["values"]]
    assert steps == list(range(1, STEPS + 1)), "no step was done twice"


def test_a_model_from_a_listed_folder_becomes_one_of_the_project(
    done: Done, tmp_path: Path, settings: Any, client: Client
) -> None:
    """The whole way: the launch, a real training process, the model with its license, ready to deploy."""
    source = tmp_path / "shared" / "kind-2"
    foreign_policy(source, foreign_tokenizer(CHATML, pad_token="<pad>"))
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    settings.MODEL_FOLDERS = [tmp_path / "shared"]
    run = done("add", base_name=str(source), config={"threads": 1})
    assert run.name == "kind-2"
    assert run.state == Run.State.SUCCEEDED, run.error
    model = existing(run.output)
    assert (model.name, model.kind, model.context) == ("kind-2", ModelVersion.Kind.FULL, 128)
    assert model.deployable
    assert model.note == f"From {source}. License: mit."
    client.force_login(run.created_by)
    page = client.get(reverse("model_detail", args=[model.pk])).text
    assert "License: mit." in page
    assert "added on" in " ".join(page.split())
    again = client.get(reverse("run_launch", args=[run.project.slug, "add"]))
    assert again.status_code == 200
    assert "Add a model" in again.text


def test_a_command_adds_a_model_and_waits_for_it(
    project: Project, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "shared" / "kind-2"
    foreign_policy(source, foreign_tokenizer(CHATML, pad_token="<pad>"))
    settings.MODEL_FOLDERS = [tmp_path / "shared"]
    monkeypatch.setattr(waiting, "pause", lambda: execute(Run.objects.latest("id").pk))
    said = io.StringIO()
    call_command("add_model", project.slug, str(source), "--name", "Kind", stdout=said)
    assert "Added Kind as model 1. From" in said.getvalue()
    assert project.models.get().deployable


def test_a_command_says_why_a_model_was_not_added(
    project: Project, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared" / "empty").mkdir(parents=True)
    settings.MODEL_FOLDERS = [tmp_path / "shared"]
    monkeypatch.setattr(waiting, "pause", lambda: execute(Run.objects.latest("id").pk))
    for source, words in (
        (tmp_path / "shared" / "empty", "there is no config.json"),
        (tmp_path, "base_name: give the name"),
    ):
        with pytest.raises(CommandError, match=words):
            call_command("add_model", project.slug, str(source), stdout=io.StringIO())
    with pytest.raises(CommandError, match="There is no project nowhere"):
        call_command("add_model", "nowhere", str(tmp_path))


def test_a_model_leaves_as_files(done: Done, base: ModelVersion, client: Client) -> None:
    """The whole way: from the button to the files on the run's page."""
    client.force_login(base.created_by)
    button = reverse("run_launch", args=[base.project.slug, "export"]) + f"?base={base.pk}"
    assert button in client.get(reverse("model_detail", args=[base.pk])).text
    form = client.get(button)
    assert "Export a model" in form.text
    assert f'value="{base.pk}" selected' in form.text
    Evaluation.objects.create(model=base, name="accuracy", value=0.75, low=0.7, high=0.8, n=120)
    run = done("export", base=base, config={"format": "gguf-q8_0", "name": "kind", "threads": 1})
    assert run.state == Run.State.SUCCEEDED, run.error
    assert set(run.outputs) == {"kind-q8_0.gguf", "Modelfile", "README.md"}
    assert run.output is None
    assert base.evaluations.count() == 1, "an export measures nothing"
    card = b"".join(client.get(reverse("run_output", args=[run.pk, "README.md"]))).decode()
    assert "# base" in card
    assert "| accuracy | 0.75 | 0.7 to 0.8, n = 120 |" in card
    assert "tensors was read back" in card
    page = client.get(reverse("run_detail", args=[run.pk])).text
    assert "kind-q8_0.gguf" in page
    file = client.get(reverse("run_output", args=[run.pk, "kind-q8_0.gguf"]))
    assert file.getvalue()[:4] == b"GGUF"
    assert file["Content-Disposition"] == 'attachment; filename="kind-q8_0.gguf"', "as the Modelfile names it"


def test_a_command_exports_a_model_into_a_folder(
    transactional_db: None, base: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "pause", lambda: execute(Run.objects.latest("id").pk))
    said = io.StringIO()
    call_command("export_model", base.project.slug, str(base.number), "--to", str(tmp_path / "out"), stdout=said)
    assert "answered by the same tokens, greedily, before and after" in said.getvalue()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype is torch.bfloat16
    with pytest.raises(CommandError, match="is not empty"):
        call_command("export_model", base.project.slug, str(base.number), "--to", str(tmp_path / "out"))
    with pytest.raises(CommandError, match="has no model 99"):
        call_command("export_model", base.project.slug, "99")
