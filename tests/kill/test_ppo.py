"""A PPO run while something is killed: it resumes from its checkpoint and no step counts twice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.kill.conftest import Sample
from tests.kill.whole import Whole, until

STEPS = 30
LAUNCH = """
from webapp.runs.models import Run
from webapp.runs.services import launch_run
old = Run.objects.filter(stage="ppo", state="succeeded").latest("pk")
config = old.config | {{"steps": {steps}, "checkpoint_every": 2, "log_every": 1, "evaluate_every": 0}}
result = launch_run(project=old.project, stage="ppo", by=old.created_by, config=config, snapshots=old.snapshots.all(),
                    base=old.base, reward=old.reward, baseline=old.baseline, corpus_run=old.corpus_run).pk
"""
STATE = """
from django.db.models import Count
from webapp.runs.folders import events_file, folder_of
from webapp.runs.models import Run
run = Run.objects.get(pk={run})
events = events_file(folder_of(run))
result = {{
    "state": run.state, "error": run.error, "step": run.step, "child": run.child, "attempts": run.attempts,
    "checkpoints": list(run.events.filter(type="checkpoint").values_list("step", flat=True)),
    "done": run.events.filter(type="done").count(),
    "steps": list(run.metrics.filter(name="objective/kl").order_by("step").values_list("step", flat=True)),
    "models": 1 if run.output_id else 0,
    "size": events.stat().st_size if events.exists() else 0,
    "events": str(events),
}}
"""


def state(whole: Whole, run: int) -> dict[str, Any]:
    return dict(whole.ask(STATE.format(run=run)))


def kill_child(whole: Whole, run: int) -> None:
    os.kill(int(state(whole, run)["child"].split("/")[2]), signal.SIGKILL)


def kill_supervisor(whole: Whole, _run: int) -> None:
    whole.kill_supervisor()
    whole.start()


def killer(*names: str) -> Callable[[Whole, int], None]:
    return lambda whole, _run: whole.kill(*names)()


VICTIMS: dict[str, Callable[[Whole, int], None]] = {
    "training child": kill_child,
    "worker-train": killer("worker-train"),
    "postgres": killer("postgres"),
    "redis": killer("redis"),
    "supervisor": kill_supervisor,
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_the_run_goes_on_from_its_checkpoint_and_no_step_counts_twice(
    whole: Whole, sample: Sample, victim: str
) -> None:
    run = whole.ask(LAUNCH.format(steps=STEPS))

    def has_checkpoints() -> bool:
        now = state(whole, run)
        assert now["state"] in ("queued", "claimed", "running"), now
        return len(now["checkpoints"]) >= 2

    until(has_checkpoints, seconds=300)
    before = state(whole, run)
    VICTIMS[victim](whole, run)

    until(lambda: state(whole, run)["state"] in ("succeeded", "failed", "cancelled"), seconds=600)
    after = state(whole, run)
    assert after["state"] == "succeeded", after["error"]
    assert after["steps"] == list(range(1, max(after["steps"]) + 1))
    assert after["done"] == 1
    assert after["models"] == 1
    assert min(steps_written(after["events"], before["size"])) > max(before["checkpoints"]), "it began anew"


def steps_written(path: str, start: int) -> list[int]:
    """Steps whose figures stand in events.jsonl after byte `start`."""
    with open(path, "rb") as file:
        file.seek(start)
        events = [json.loads(line) for line in file]
    return [event["step"] for event in events if event["type"] == "metric" and "objective/kl" in event["values"]]
