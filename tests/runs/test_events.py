"""events.jsonl into the database: whole lines, once each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError

from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project
from webapp.jobs import ClaimLost
from webapp.runs.models import Metric, Run, RunEvent
from webapp.runs.services import claim_run, read_events

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(project: Project) -> Run:
    return existing(claim_run(run_id=factories.run(project).pk, worker="here"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def write(log: Path, *events: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.writelines(json.dumps({"time": 1.0} | event) + "\n" for event in events)


def metric(step: int, **values: float) -> dict[str, Any]:
    return {"type": "metric", "step": step, "values": values}


def sample(step: int, reply: str) -> dict[str, Any]:
    return {"type": "sample", "step": step, "prompt": "Hi", "reply": reply}


def test_lines_are_read_once_each(run: Run, log: Path) -> None:
    write(log, metric(1, loss=2.0), sample(1, "hello"))
    assert read_events(run, log) is True
    assert read_events(run, log) is False
    write(log, metric(2, loss=1.0))
    read_events(run, log)
    assert list(run.metrics.values_list("step", "value")) == [(1, 2.0), (2, 1.0)]
    assert run.events.count() == 1
    assert run.events_read == log.stat().st_size


def test_half_a_line_waits_for_its_other_half(run: Run, log: Path) -> None:
    line = json.dumps({"time": 1.0} | metric(1, loss=2.0)) + "\n"
    log.write_text(line[:20])
    assert read_events(run, log) is False
    log.write_text(line)
    assert read_events(run, log) is True
    assert run.metrics.count() == 1


def test_a_reader_that_dies_in_the_middle_leaves_nothing_half_counted(
    run: Run, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, metric(1, loss=2.0), sample(1, "hello"))
    with monkeypatch.context() as broken:
        broken.setattr(Run, "save", lambda *_, **__: (_ for _ in ()).throw(DatabaseError("gone")))
        with pytest.raises(DatabaseError):
            read_events(run, log)
    assert (Metric.objects.count(), RunEvent.objects.count()) == (0, 0)
    read_events(run, log)
    assert (Metric.objects.count(), RunEvent.objects.count()) == (1, 1)


def test_what_a_resumed_run_says_again_replaces_what_it_said(run: Run, log: Path) -> None:
    write(log, metric(1, loss=2.0), sample(1, "first"), metric(2, loss=1.0), sample(2, "lost"))
    read_events(run, log)
    since = log.stat().st_size
    write(log, metric(2, loss=1.5), sample(2, "second"))
    read_events(run, log, since)
    assert list(run.metrics.order_by("step").values_list("value", flat=True)) == [2.0, 1.5]
    assert [event.data["reply"] for event in run.events.all()] == ["first", "second"]


def test_nul_characters_do_not_stop_the_reader(run: Run, log: Path) -> None:
    write(log, sample(1, "a\x00b"), metric(1, loss=1.0))
    read_events(run, log)
    assert run.events.get().data["reply"] == "ab"
    assert run.metrics.count() == 1


def test_a_line_of_an_unknown_kind_is_passed_over(run: Run, log: Path) -> None:
    write(log, {"type": "telemetry"}, metric(1, loss=1.0))
    read_events(run, log)
    assert run.metrics.count() == 1


def test_a_checkpoint_forgives_earlier_attempts(run: Run, log: Path) -> None:
    Run.objects.filter(pk=run.pk).update(attempts=4)
    write(log, {"type": "checkpoint", "step": 10, "folder": "checkpoint-10"})
    read_events(run, log)
    assert Run.objects.get(pk=run.pk).attempts == 1


def test_a_reader_without_the_claim_reads_nothing(run: Run, log: Path) -> None:
    write(log, metric(1, loss=1.0))
    Run.objects.filter(pk=run.pk).update(claim=None)
    with pytest.raises(ClaimLost):
        read_events(run, log)
    assert Metric.objects.count() == 0


def test_progress_moves_the_run(run: Run, log: Path) -> None:
    write(log, {"type": "progress", "step": 3, "total": 10, "phase": "training", "eta": 7.5})
    read_events(run, log)
    found = Run.objects.get(pk=run.pk)
    assert (found.step, found.total, found.phase, found.eta) == (3, 10, "training", 7.5)
