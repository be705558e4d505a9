"""Who works on a run, and what becomes of one whose worker is gone."""

from __future__ import annotations

import logging
import signal
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from webapp import processes
from webapp.jobs import RESEND, JobQueue
from webapp.runs.models import Run
from webapp.wake import send_task

log = logging.getLogger(__name__)
State = Run.State

MAX_ATTEMPTS: Final = 5
RUNS: Final = JobQueue(Run, Run.ACTIVE, task="webapp.runs.tasks.execute_run", celery_queue="train")
IMPORT_REPLIES: Final = "webapp.runs.tasks.import_replies"


@transaction.atomic
def claim_run(*, run_id: int, worker: str = "") -> Run | None:
    """Take a queued run for the process that `worker` names, or for this one. None if there is nothing to take: the
    message that led here came twice, or the run was stopped."""
    run = RUNS.claim(run_id, worker=worker, state=State.CLAIMED)
    if run is not None and run.started_at is None:
        RUNS.update(run, started_at=timezone.now())
    return run


def mark_running(run: Run, child: str) -> None:
    RUNS.update(run, state=State.RUNNING, child=child)


def fail_run(run: Run, message: str, code: str = "failed") -> None:
    RUNS.end(run, state=State.FAILED, error=message, error_code=code, finished_at=timezone.now(), eta=None)
    log.warning("run %s failed (%s): %s", run.pk, code, message)


def cancel_run(run: Run) -> None:
    RUNS.end(run, state=State.CANCELLED, finished_at=timezone.now(), eta=None)


def requeue_run(run: Run, reason: str, *, counts: bool = True) -> None:
    """Put a run that did not end back in the queue; too many times in a row without a checkpoint fail it.

    `counts=False`: it was no fault of the run's, as when the worker is shut down.
    """
    if counts and run.attempts >= MAX_ATTEMPTS:
        fail_run(
            run,
            f"{reason} This happened {run.attempts} times since the last checkpoint, so it is not tried again by "
            "itself. Look at the end of the log below, then resume the run.",
            "too_many_attempts",
        )
        return
    attempts = run.attempts if counts else max(0, run.attempts - 1)
    RUNS.release(run, state=State.QUEUED, attempts=attempts, woken_at=None, eta=None)
    log.warning("run %s goes back in the queue: %s", run.pk, reason)


def reconcile_runs(now: datetime | None = None) -> dict[str, int]:
    """Find what should be going on and is not. Safe to call at any time, from any number of processes.

    Runs whose worker is gone go back in the queue, queued runs that nobody was told of are announced, replies that
    should have become tasks are sent for. Returns how many of each.
    """
    now = now or timezone.now()
    return {
        "taken_back": RUNS.take_back(requeue_lost_run, now=now),
        "announced": RUNS.announce(now=now),
        "imports": ask_for_imports(now),
    }


def requeue_lost_run(run: Run) -> None:
    processes.signal_group(run.child, signal.SIGTERM)  # it writes a checkpoint, and lets go of its folder
    if run.stop_requested_at:
        cancel_run(run)
    else:
        requeue_run(run, "The worker that ran this disappeared.")


def ask_for_imports(now: datetime) -> int:
    late: Any = Run.objects.filter(
        state=State.SUCCEEDED, rank_replies=True, imported_at=None, finished_at__lt=now - RESEND
    ).values_list("pk", flat=True)
    return sum(send_task(IMPORT_REPLIES, run_id) for run_id in late)
