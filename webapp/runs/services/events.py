"""events.jsonl into the database: every line once, whoever reads it and however often they are killed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.db import transaction
from pydantic import ValidationError

from training.contract import EVENT, Checkpoint, Event, MetricEvent, ProgressEvent
from webapp.jobs import ClaimLost
from webapp.runs.models import Metric, Run, RunEvent
from webapp.runs.services.claims import RUNS
from webapp.text import clean_text

PIECE = 1 << 20


def read_events(run: Run, path: Path, since: int = 0) -> bool:
    """Take in the next whole lines of the file; whether there were any.

    The lines' effects and the place up to which they were read are written in one transaction, so a reader that dies
    leaves nothing half counted. After a resume the stage writes again what followed its checkpoint: metrics of a step
    replace those of the same step, and samples from before byte `since`, where this start began, give way to new ones
    of their step. Raises ClaimLost.
    """
    try:
        with path.open("rb") as file:
            file.seek(run.events_read)
            block = file.read(PIECE)
    except FileNotFoundError:
        return False
    whole = block[: block.rfind(b"\n") + 1]
    if not whole:
        return False
    with transaction.atomic():
        locked = RUNS.held(run).select_for_update().first()
        if locked is None or locked.events_read != run.events_read:
            raise ClaimLost
        take_in(locked, whole, since)
        locked.events_read += len(whole)
        locked.save(update_fields=["events_read", "step", "total", "phase", "eta", "attempts"])
    for name in ("events_read", "step", "total", "phase", "eta", "attempts"):
        setattr(run, name, getattr(locked, name))
    return True


def take_in(run: Run, lines: bytes, since: int) -> None:
    metrics: dict[tuple[str, int], Metric] = {}
    events: list[RunEvent] = []
    position = run.events_read
    for line in lines.splitlines(keepends=True):
        event = parsed_event(line)
        if isinstance(event, ProgressEvent):
            run.step, run.total, run.phase, run.eta = event.step, event.total, event.phase[:100], event.eta
        elif isinstance(event, MetricEvent):
            for name, value in event.values.items():
                metrics[name, event.step] = Metric(
                    run=run, name=name[:80], step=event.step, value=value, time=moment(event.time)
                )
        elif event is not None:
            events.append(row(run, position, event))
            if isinstance(event, Checkpoint):
                run.attempts = 1  # it got further: what went wrong before does not count anymore
        position += len(line)
    Metric.objects.bulk_create(
        metrics.values(), update_conflicts=True, unique_fields=["run", "name", "step"], update_fields=["value", "time"]
    )
    samples = [event.step for event in events if event.type == "sample"]
    if samples:
        RunEvent.objects.filter(run=run, type="sample", position__lt=since, step__gte=min(samples)).delete()
    RunEvent.objects.bulk_create(events, ignore_conflicts=True)


def parsed_event(line: bytes) -> Event | None:
    """A line of a newer or broken writer is passed over: it must not keep the rest from being read."""
    try:
        return EVENT.validate_json(line)
    except ValidationError:
        return None


def row(run: Run, position: int, event: Event) -> RunEvent:
    data = event.model_dump(mode="json", exclude={"type", "time", "step"})
    return RunEvent(
        run=run, position=position, type=event.type, step=event.step, time=moment(event.time), data=storable(data)
    )


def storable(value: Any) -> Any:
    """Without the NUL characters that PostgreSQL cannot hold."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {key: storable(item) for key, item in value.items()}
    return value


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
