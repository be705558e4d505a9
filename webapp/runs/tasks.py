"""Celery tasks. A message is a wake-up call: what is to be done is read from the database, so twice does no harm."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutting_down

from webapp.runs import execution, exports, reporting, services, uploads
from webapp.runs.models import Run
from webapp.runs.services import redaction
from webapp.runs.services.claims import RUNS


@shared_task
def execute_run(run_id: int) -> bool:
    """See one run through, here. It may take hours; another message for it finds nothing to claim."""
    return execution.execute(run_id)


@shared_task
def import_replies(run_id: int) -> int:
    return services.import_samples(run=Run.objects.get(pk=run_id))


@shared_task(expires=30)
def reconcile_training_runs() -> dict[str, int]:
    return services.reconcile_runs()


@shared_task
def clean_up_uploads() -> int:
    """Delete model files that nobody added."""
    return uploads.delete_old_uploads()


@shared_task
def redact_files() -> dict[str, int]:
    """Take erased rows out of files that hold copies of them. Sent for by each erasure, and every ten minutes."""
    return redaction.redact_files()


@shared_task
def remove_old_exports() -> int:
    """Delete the files of exports whose time is over. Sent for every hour."""
    return exports.remove_old_exports()


@worker_shutting_down.connect
def let_go(**_: Any) -> None:
    """The worker was asked to go: its run writes a checkpoint and goes back in the queue."""
    execution.shutting_down.set()


@worker_ready.connect
def report_machine(sender: Any = None, **_: Any) -> None:
    """A worker that takes training runs says what it computes on."""
    if RUNS.celery_queue in sender.app.amqp.queues.consume_from:
        reporting.start_reporting(execution.shutting_down)
