"""Who works on a run. One worker holds it at a time: whoever has its `claim`, for as long as it beats its heart."""

from __future__ import annotations

import logging
import signal
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from webapp.runs import processes
from webapp.runs.models import Run
from webapp.runs.wake import EXECUTE, IMPORT, send, waiting

log = logging.getLogger(__name__)
State = Run.State

STALE = timedelta(seconds=45)  # without a heartbeat for this long, a run is taken from its worker
RESEND = timedelta(seconds=30)  # a queued run that nobody claimed is announced again after this long
MAX_ATTEMPTS = 5


class ClaimLost(Exception):
    """Somebody else has the run now; whoever held it must let go without writing anything."""


@transaction.atomic
def claim_run(*, run_id: int, worker: str) -> Run | None:
    """Take a queued run, for the process that `worker` names. None where there is nothing to take: the message that led
    here came twice, or the run was stopped."""
    run = Run.objects.select_for_update(skip_locked=True).filter(pk=run_id, state=State.QUEUED).first()
    if run is None:
        return None
    now = timezone.now()
    run.state, run.claim, run.claimed_by, run.heartbeat_at = State.CLAIMED, uuid.uuid4(), worker, now
    run.started_at = run.started_at or now
    run.attempts += 1
    run.save(update_fields=["state", "claim", "claimed_by", "heartbeat_at", "started_at", "attempts"])
    return run


def held(run: Run) -> QuerySet[Run]:
    """The run while this claim on it holds; empty once it does not."""
    return Run.objects.filter(pk=run.pk, claim=run.claim, state__in=(State.CLAIMED, State.RUNNING))


def update_held(run: Run, **values: Any) -> None:
    """Write to a run that is ours. Raises ClaimLost."""
    if not held(run).update(**values):
        raise ClaimLost
    for name, value in values.items():
        setattr(run, name, value)


def beat(run: Run) -> bool:
    """Say that the worker lives; whether the run is to be stopped. Raises ClaimLost."""
    update_held(run, heartbeat_at=timezone.now())
    return Run.objects.filter(pk=run.pk, stop_requested_at__isnull=False).exists()


def running(run: Run, child: str) -> None:
    update_held(run, state=State.RUNNING, child=child)


def fail_run(run: Run, message: str, code: str = "failed") -> None:
    update_held(run, state=State.FAILED, error=message, error_code=code, finished_at=timezone.now(), eta=None)
    log.warning("run %s failed (%s): %s", run.pk, code, message)


def cancel_run(run: Run) -> None:
    update_held(run, state=State.CANCELLED, finished_at=timezone.now(), eta=None)


def hand_back(run: Run, why: str, *, counts: bool = True) -> None:
    """Put a run that did not end back in the queue; too many times in a row without a checkpoint fail it.

    `counts=False`: it was no fault of the run's, as when the worker is shut down.
    """
    if counts and run.attempts >= MAX_ATTEMPTS:
        fail_run(
            run,
            f"{why} This happened {run.attempts} times since the last checkpoint, so it is not tried again by itself. "
            "Look at the end of the log below, then resume the run.",
            "too_many_attempts",
        )
        return
    attempts = run.attempts if counts else max(0, run.attempts - 1)
    update_held(run, state=State.QUEUED, attempts=attempts, woken_at=None, eta=None)
    log.warning("run %s goes back in the queue: %s", run.pk, why)


def reconcile_runs(now: datetime | None = None) -> dict[str, int]:
    """Find what should be going on and is not. Safe to call at any time, from any number of processes.

    Runs whose worker is gone go back in the queue, queued runs that nobody was told of are announced, replies that
    should have become tasks are sent for. Returns how many of each.
    """
    now = now or timezone.now()
    return {"taken_back": take_back(now), "announced": announce(now), "imports": ask_for_imports(now)}


def take_back(now: datetime) -> int:
    taken = 0
    for run_id in Run.objects.filter(state__in=(State.CLAIMED, State.RUNNING)).values_list("pk", flat=True):
        with transaction.atomic():
            run = Run.objects.select_for_update(skip_locked=True).filter(pk=run_id).first()
            if run is None or run.state not in (State.CLAIMED, State.RUNNING) or worker_lives(run, now):
                continue
            processes.signal_group(run.child, signal.SIGTERM)  # it writes a checkpoint, and lets go of its folder
            if run.stop_requested_at:
                cancel_run(run)
            else:
                hand_back(run, "The worker that ran this disappeared.")
            taken += 1
    return taken


def worker_lives(run: Run, now: datetime) -> bool:
    if processes.is_here(run.claimed_by) and not processes.is_alive(run.claimed_by):
        return False
    return run.heartbeat_at is not None and run.heartbeat_at > now - STALE


def announce(now: datetime) -> int:
    """Send for queued runs, unless there are messages enough on the way already."""
    queued = Run.objects.filter(state=State.QUEUED)
    silent = queued.exclude(woken_at__gt=now - RESEND).order_by("pk")
    ids = list(silent.values_list("pk", flat=True))
    if not ids or waiting() >= queued.count():
        return 0
    Run.objects.filter(pk__in=ids).update(woken_at=now)
    return sum(send(EXECUTE, run_id) for run_id in ids)


def ask_for_imports(now: datetime) -> int:
    late = Run.objects.filter(
        state=State.SUCCEEDED, rank_replies=True, imported_at=None, finished_at__lt=now - RESEND
    ).values_list("pk", flat=True)
    return sum(send(IMPORT, run_id) for run_id in late)
