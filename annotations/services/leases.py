"""Who works on what: the next task, and the hold on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone

from annotations.models import Lease, Task
from annotations.services.drafts import AlreadyAnswered
from annotations.services.seats import fill_seats, free_seat, is_erased, lock_task
from webapp.accounts.access import ROLES
from webapp.accounts.models import Guidelines, Project, User
from webapp.errors import Conflict
from webapp.text import clean_text

# The best open task, locked, and a lease on its lowest free seat. Two people who saw the same seat free at the same
# moment are told apart by the unique constraint: `given` is empty for the second, who tries again. The conditions are
# subqueries with OFFSET 0, which PostgreSQL does not turn into joins: it then walks the index from the best task on and
# stops at the first that fits, where joins make it look at every open task (2 ms against 230 ms at 10,000).
LEASE_NEXT: Final = """
WITH picked AS (
    SELECT t.id, t.overlap FROM annotations_task t
    WHERE t.project_id = %(project)s AND t.state = 'open' AND t.kind = ANY(%(kinds)s)
      AND (SELECT p.archived_at IS NULL FROM accounts_project p WHERE p.id = %(project)s)
      AND (SELECT count(l.seat) < t.overlap
            AND count(*) FILTER (
                WHERE l.person_id = %(person)s AND l.outcome IN ('held', 'submitted', 'skipped')) = 0
        FROM annotations_lease l WHERE l.task_id = t.id)
      AND NOT EXISTS (
        SELECT FROM annotations_task_responses s JOIN annotations_response r ON r.id = s.response_id
        WHERE s.task_id = t.id AND r.author_id = %(person)s OFFSET 0)
      AND NOT EXISTS (
        SELECT FROM annotations_demonstration d
        WHERE d.id = t.demonstration_id AND d.author_id = %(person)s OFFSET 0)
    ORDER BY t.priority DESC, t.id
    LIMIT 1
    FOR UPDATE OF t {wait}
), given AS (
    INSERT INTO annotations_lease
        (task_id, person_id, until, outcome, seat, order_shown, guidelines_id, skip_reason, created_at)
    SELECT picked.id, %(person)s, %(until)s, 'held',
        (SELECT min(candidate) FROM generate_series(1, picked.overlap) candidate WHERE NOT EXISTS (
            SELECT FROM annotations_lease l WHERE l.task_id = picked.id AND l.seat = candidate)),
        (SELECT coalesce(jsonb_agg(s.response_id ORDER BY random()), '[]'::jsonb)
            FROM annotations_task_responses s WHERE s.task_id = picked.id),
        (SELECT g.id FROM accounts_guidelines g WHERE g.project_id = %(project)s ORDER BY g.version DESC LIMIT 1),
        '', %(now)s
    FROM picked
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT (SELECT id FROM picked), (SELECT id FROM given)
"""
# A lease ends with its time, or with its holder's right to label.
SWEEP: Final = """
UPDATE annotations_lease SET outcome = 'lapsed', seat = NULL, ended_at = %(now)s WHERE id IN (
    SELECT l.id FROM annotations_lease l
    JOIN annotations_task t ON t.id = l.task_id
    JOIN accounts_user u ON u.id = l.person_id
    WHERE l.outcome = 'held' AND t.project_id = %(project)s
      AND (l.until < %(now)s OR NOT u.is_active OR NOT (u.is_superuser OR EXISTS (
        SELECT FROM accounts_membership m
        WHERE m.project_id = %(project)s AND m.user_id = u.id AND m.role = ANY(%(roles)s))))
    FOR UPDATE OF l SKIP LOCKED)
RETURNING task_id
"""


def lease_next(
    *, person: User, project: Project, kinds: Sequence[Task.Kind] | None = None, now: datetime | None = None
) -> Lease | None:
    """The task this person should do now: the one in hand, else the best open one, now in hand; None if there is none,
    or if the project is archived.

    A task in hand that is not of the `kinds` asked for is given back; its draft stays. What goes before the statement
    has transactions of its own, so that no lock is held while it waits.
    """
    now = now or timezone.now()
    kinds = list(kinds or Task.Kind)
    sweep_lapsed(project=project, now=now)
    lease_id = _in_hand(person, project, kinds, now) or _take(person, project, kinds, now)
    return lease_with_task(lease_id) if lease_id else None


def lease_with_task(lease_id: int) -> Lease:
    return Lease.objects.select_related(
        "person", "guidelines", "task__project", "task__prompt", "task__demonstration__response"
    ).get(pk=lease_id)


def newest_lease(lease: Lease) -> Lease:
    """The person's newest lease on the task: after an undo, an older page still names the one before."""
    newest = Lease.objects.filter(task_id=lease.task_id, person_id=lease.person_id).order_by("-id")
    return lease_with_task(newest.values_list("id", flat=True)[0])


def archived_at(project: Project) -> datetime | None:
    """As it is now, whatever `project` was read as."""
    return Project.objects.values_list("archived_at", flat=True).get(pk=project.pk)


def lease_end(project: Project, now: datetime) -> datetime:
    return now + timedelta(minutes=project.lease_minutes)


def sweep_lapsed(*, project: Project, now: datetime) -> None:
    """End the leases whose time is over, and those of people who may not label here anymore; submissions in reserve
    step into the seats that become free."""
    with connection.cursor() as cursor:
        cursor.execute(SWEEP, {"project": project.pk, "now": now, "roles": [role.value for role in ROLES["label"]]})
        freed = {row[0] for row in cursor.fetchall()}
    if not freed:
        return
    reserve = Lease.objects.filter(task_id__in=freed, outcome=Lease.Outcome.SUBMITTED, seat=None)
    for task in Task.objects.filter(leases__in=reserve).distinct().order_by("id"):
        with transaction.atomic():
            fill_seats(lock_task(task))


def _in_hand(person: User, project: Project, kinds: Sequence[Task.Kind], now: datetime) -> int | None:
    held = Lease.objects.filter(
        person=person, outcome=Lease.Outcome.HELD, task__project=project, task__project__archived_at=None
    )
    chosen = None
    for lease_id, kind in held.order_by("id").values_list("id", "task__kind"):
        if kind not in kinds:
            release(lease=lease_with_task(lease_id), now=now)
        elif chosen is None and renewed(lease_id, lease_end(project, now)):
            chosen = lease_id
    return chosen


def _take(person: User, project: Project, kinds: Sequence[Task.Kind], now: datetime) -> int | None:
    """Run the statement until it gives a lease or finds no task. Locked tasks are passed over first and waited for
    only when nothing else is left, so that nobody is sent away while a seat is free."""
    values: dict[str, Any] = {
        "project": project.pk,
        "person": person.pk,
        "kinds": list(kinds),
        "now": now,
        "until": lease_end(project, now),
    }
    wait = "SKIP LOCKED"
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(LEASE_NEXT.format(wait=wait), values)
            picked, lease_id = cursor.fetchone()
        if lease_id:
            return int(lease_id)
        if picked is None and not wait:
            return None
        if picked is None:
            wait = ""


def renewed(lease_id: int, until: datetime) -> bool:
    """Whether the lease was still held; it is now held until `until`."""
    return bool(Lease.objects.filter(pk=lease_id, outcome=Lease.Outcome.HELD).update(until=until))


@transaction.atomic
def renew_lease(*, lease: Lease, now: datetime | None = None) -> Lease:
    """Keep the hold for another while; take up again one that ended where a seat is still free. See its `outcome`."""
    now = now or timezone.now()
    until = lease_end(lease.task.project, now)
    if not renewed(lease.pk, until):
        take_up_again(lease=lease, until=until)
    lease.refresh_from_db(fields=["outcome", "seat", "until"])
    return lease


def take_up_again(*, lease: Lease, until: datetime) -> None:
    """Put a lease that ended without a word back on a free seat, unless the person was given the task again since."""
    task = lock_task(lease.task)
    if archived_at(task.project) is not None:
        return
    seat = free_seat(task)
    since = Lease.objects.filter(task=task, person_id=lease.person_id, pk__gt=lease.pk)
    if seat is not None and not since.exists():
        Lease.objects.filter(pk=lease.pk, outcome__in=[Lease.Outcome.LAPSED, Lease.Outcome.RETURNED]).update(
            outcome=Lease.Outcome.HELD, seat=seat, until=until, ended_at=None
        )


@transaction.atomic
def release(*, lease: Lease, now: datetime | None = None) -> None:
    """Give the task back; it may come again. The draft stays."""
    _end(lease, Lease.Outcome.RETURNED, "", now)


@transaction.atomic
def skip(*, lease: Lease, reason: str = "", now: datetime | None = None) -> None:
    """Not for this person: the task does not come back to them unless they take it up again. The draft stays."""
    _end(lease, Lease.Outcome.SKIPPED, clean_text(reason).strip(), now)


@transaction.atomic
def unskip(*, lease: Lease, now: datetime | None = None) -> Lease:
    """Take a skipped task up again: on a free seat, or without one where others have them all."""
    now = now or timezone.now()
    task = lock_task(lease.task)
    lease.refresh_from_db(fields=["outcome"])
    newest = Lease.objects.filter(task=task, person_id=lease.person_id).order_by("-id").values_list("id", flat=True)[0]
    if lease.outcome != Lease.Outcome.SKIPPED or lease.pk != newest:
        raise Conflict("You have already taken up this task again.")
    if task.state not in (Task.State.OPEN, Task.State.FULL):
        raise Conflict("This task has been closed, so it cannot be brought back.")
    if archived_at(task.project) is not None:
        raise Conflict(f"{task.project.name} is archived and hands out no tasks.")
    lease.seat = free_seat(task)
    lease.outcome = Lease.Outcome.HELD if lease.seat else Lease.Outcome.LAPSED
    lease.until, lease.ended_at, lease.skip_reason = lease_end(task.project, now), None, ""
    lease.save(update_fields=["seat", "outcome", "until", "ended_at", "skip_reason"])
    return lease


def show_guidelines(*, lease: Lease, guidelines: Guidelines | None) -> None:
    """Note that the person was shown this version of the guidelines with the task."""
    if guidelines is not None and lease.guidelines_id != guidelines.pk:
        Lease.objects.filter(pk=lease.pk).update(guidelines=guidelines)
        lease.guidelines = guidelines


def _end(lease: Lease, outcome: Lease.Outcome, reason: str, now: datetime | None) -> None:
    task = lock_task(lease.task)
    lease.refresh_from_db(fields=["outcome", "seat"])
    if lease.outcome == Lease.Outcome.SUBMITTED:
        raise AlreadyAnswered
    reason = "" if is_erased(task) else reason
    lease.outcome, lease.seat, lease.skip_reason, lease.ended_at = outcome, None, reason, now or timezone.now()
    lease.save(update_fields=["outcome", "seat", "skip_reason", "ended_at"])
    fill_seats(task)
