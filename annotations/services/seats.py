"""The seats of a task, `overlap` of them, and who sits where.

A live lease and a counted submission each hold one seat; the database lets no two hold the same. Whoever gives or
takes a seat locks the task first and its leases after it; two statements that see the same seat free are told apart
by the unique constraint.
"""

from __future__ import annotations

from django.db.models import Q

from annotations.models import Lease, Task
from annotations.services.reviews import settle_reviews


def lock_task(task: Task) -> Task:
    """The task as it is now, nobody else touching its seats until the transaction ends."""
    task.refresh_from_db(fields=["state", "overlap"], from_queryset=Task.objects.select_for_update())
    return task


def is_erased(task: Task) -> bool:
    """Whether the words that the task is about were removed for good."""
    return Task.objects.filter(pk=task.pk, prompt__erased_at__isnull=False).exists()


def free_seat(task: Task) -> int | None:
    """The lowest free seat of a locked task; None when all are taken or it takes no more labels."""
    if task.state not in (Task.State.OPEN, Task.State.FULL):
        return None
    taken_seats = set(Lease.objects.filter(task=task, seat__isnull=False).values_list("seat", flat=True))
    return next((seat for seat in range(1, task.overlap + 1) if seat not in taken_seats), None)


def fill_seats(task: Task) -> None:
    """Let submissions in reserve, earliest first, step into free seats of a locked task; then set its state."""
    reserve = Lease.objects.filter(
        Q(demonstration__retracted_at=None, demonstration__isnull=False)
        | Q(ranking__retracted_at=None, ranking__isnull=False)
        | Q(review__retracted_at=None, review__isnull=False),
        task=task,
        outcome=Lease.Outcome.SUBMITTED,
        seat=None,
    ).order_by("ended_at", "id")
    for lease in reserve:
        lease.seat = free_seat(task)
        if lease.seat is None:
            break
        lease.save(update_fields=["seat"])
    settle_state(task)
    if task.demonstration is not None:
        settle_reviews(demonstration=task.demonstration)


def settle_state(task: Task) -> None:
    """Full when submissions hold every seat of a locked task, else open; closed and withdrawn stay."""
    if task.state not in (Task.State.OPEN, Task.State.FULL):
        return
    filled = Lease.objects.filter(task=task, outcome=Lease.Outcome.SUBMITTED, seat__isnull=False).count()
    state = Task.State.FULL if filled >= task.overlap else Task.State.OPEN
    if state != task.state:
        task.state = state
        task.save(update_fields=["state"])
