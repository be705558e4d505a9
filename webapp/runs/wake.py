"""Messages to workers that there is something to do. One that is lost is sent again by the reconciler."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone
from kombu.exceptions import ChannelError

from webapp.celery import app
from webapp.runs.models import Run
from webapp.wake import send_task

EXECUTE = "webapp.runs.tasks.execute_run"
IMPORT = "webapp.runs.tasks.import_replies"
QUEUE = "train"


def wake(run: Run) -> None:
    """Tell a worker of a queued run once this transaction is done."""
    Run.objects.filter(pk=run.pk).update(woken_at=timezone.now())
    transaction.on_commit(lambda: send(EXECUTE, run.pk))


def send(task: str, run_id: int) -> bool:
    """False, with a line in the log, where the broker does not answer: the run waits in the database."""
    return send_task(task, run_id, queue=QUEUE if task == EXECUTE else None)


def waiting() -> int:
    """How many messages wait on the training queue."""
    with app.connection_for_write() as connection:
        try:
            channel: Any = connection.default_channel
            return int(channel.queue_declare(QUEUE, passive=True).message_count)
        except ChannelError:
            return 0  # the queue does not exist: no message was ever sent
