"""SIGKILL in the middle of a run, with a real worker: it resumes from its checkpoint and nothing counts twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from tests.narrowing import existing
from tests.runs.conftest import SMALL
from webapp.accounts.models import Project
from webapp.home_folder import ROOT
from webapp.registry.models import ModelVersion
from webapp.runs.folders import folder_of
from webapp.runs.models import Run
from webapp.runs.services import launch_run, reconcile_runs

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
STEPS = 150


class Workers:
    """Training workers as they run for real, on the test database."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        address = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
        environment = os.environ | {
            "DATABASE_URL": address.geturl(),
            "RUNS_FOLDER": str(settings.RUNS_FOLDER),
            "ARTEFACTS_URL": settings.ARTEFACTS_URL,
            "OMP_NUM_THREADS": "1",
        }
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "webapp.celery",
            "worker",
            "-Q",
            "train",
            "-P",
            "threads",
            "-c",
            "1",
        ]
        worker = subprocess.Popen([*command, "--without-gossip", "--without-mingle"], cwd=ROOT, env=environment)
        self.started.append(worker)
        return worker


@pytest.fixture
def workers() -> Iterator[Workers]:
    found = Workers()
    yield found
    for worker in found.started:
        worker.kill()
        worker.wait()


def wait_for(run: Run, ready: Callable[[Run], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run.refresh_from_db()
        if ready(run):
            return
        assert run.state != Run.State.FAILED, run.error
        time.sleep(0.05)
    pytest.fail(f"run is {run.state} at step {run.step}: {run.error}")


def child_of(run: Run) -> int:
    return int(run.child.split("/")[2])


def steps_in(path: Path, start: int = 0) -> list[int]:
    """The steps of the loss in events.jsonl from byte `start` on."""
    events = [json.loads(line) for line in path.read_bytes()[start:].splitlines()]
    return [event["step"] for event in events if event["type"] == "metric" and "loss" in event["values"]]


def long_run(project: Project, cleaned: Run, tokenizer: ModelVersion, steps: int = STEPS) -> Run:
    config = SMALL | {"max_steps": steps, "epochs": 1000, "checkpoint_every": 10, "log_every": 1, "evaluate_every": 0}
    return launch_run(
        project=project, stage="pretrain", by=project.created_by, corpus_run=cleaned, tokenizer=tokenizer, config=config
    )


@pytest.mark.parametrize("victims", [("worker", "child"), ("worker",), ("child",)], ids="+".join)
def test_a_killed_run_resumes_from_its_checkpoint_and_counts_nothing_twice(
    workers: Workers, project: Project, cleaned: Run, tokenizer: ModelVersion, victims: tuple[str, ...]
) -> None:
    run = long_run(project, cleaned, tokenizer)
    worker = workers.start()
    wait_for(run, lambda run: run.events.filter(type="checkpoint").count() >= 2)
    checkpoint = max(run.events.filter(type="checkpoint").values_list("step", flat=True))
    if "worker" in victims:
        worker.kill()
        worker.wait()
    if "child" in victims:
        os.killpg(child_of(run), signal.SIGKILL)
    events = folder_of(run) / "events.jsonl"
    written = events.stat().st_size if "child" in victims else 0

    if "worker" in victims:
        workers.start()
    wait_for(run, lambda run: bool(reconcile_runs()) and run.state == Run.State.SUCCEEDED)

    assert list(run.metrics.filter(name="loss").order_by("step").values_list("step", flat=True)) == list(
        range(1, STEPS + 1)
    )
    assert run.events.filter(type="done").count() == 1
    assert ModelVersion.objects.filter(project=project, stage="pretrain").count() == 1
    assert existing(run.output).stage == "pretrain"
    assert run.events_read == events.stat().st_size
    if written:
        assert min(steps_in(events, written)) > checkpoint, "it went on from its checkpoint, not from its start"


def test_a_worker_that_is_shut_down_lets_its_run_write_a_checkpoint_and_gives_it_back(
    workers: Workers, project: Project, cleaned: Run, tokenizer: ModelVersion
) -> None:
    run = long_run(project, cleaned, tokenizer, steps=20 * STEPS)  # it must not end before the worker has told it
    worker = workers.start()
    wait_for(run, lambda run: run.step >= 3)
    worker.terminate()
    assert worker.wait(timeout=60) == 0
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.QUEUED, "")
    assert run.attempts <= 1, "a shutdown is not held against the run"
    assert list(folder_of(run).glob("checkpoint-*"))
