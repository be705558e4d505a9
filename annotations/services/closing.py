"""Tasks that nobody is asked for a while, and their way back."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from annotations.models import Task
from annotations.services.seats import fill_seats, lock_task
from annotations.services.tasks import take_from_people


@transaction.atomic
def close_tasks(*, tasks: QuerySet[Task], now: datetime | None = None) -> int:
    """Hand open tasks to nobody until they are reopened. Work in hand may still be sent in, and counts once its task
    is open again. Returns how many were closed."""
    return take_from_people(tasks.filter(state=Task.State.OPEN), Task.State.CLOSED, now)


@transaction.atomic
def reopen_tasks(*, tasks: QuerySet[Task]) -> int:
    """Ask people again; what they sent in meanwhile takes its seat. Returns how many."""
    reopened = list(tasks.order_by("id"))
    for task in reopened:
        lock_task(task)
        task.state = Task.State.OPEN
        task.save(update_fields=["state"])
        fill_seats(task)
    return len(reopened)
