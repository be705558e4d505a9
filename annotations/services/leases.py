"""Who works on what: the next task, and the hold on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone

from annotations.models import Draft, Lease, Task
from annotations.services.places import fill_places, free_place, lock_task
from webapp.accounts.models import Project, User
from webapp.errors import Conflict
from webapp.text import clean_text

# The best open task, locked, and a lease on its lowest free place. Two people who saw the same place free at the same
# moment are told apart by the unique constraint: `given` is empty for the second, who tries again. The conditions are
# subqueries with OFFSET 0, which PostgreSQL does not turn into joins: it then walks the index from the best task on and
# stops at the first that fits, where joins make it look at every open task (2 ms against 230 ms at 10,000).
LEASE_NEXT: Final = """
WITH picked AS (
    SELECT t.id, t.overlap FROM annotations_task t
    WHERE t.project_id = %(project)s AND t.state = 'open' AND t.kind = ANY(%(kinds)s)
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
    INSERT INTO annotations_lease (task_id, person_id, until, outcome, seat, order_shown, skip_reason, created_at)
    SELECT picked.id, %(person)s, %(until)s, 'held',
        (SELECT min(place) FROM generate_series(1, picked.overlap) place WHERE NOT EXISTS (
            SELECT FROM annotations_lease l WHERE l.task_id = picked.id AND l.seat = place)),
        (SELECT coalesce(jsonb_agg(s.response_id ORDER BY random()), '[]'::jsonb)
            FROM annotations_task_responses s WHERE s.task_id = picked.id),
        '', %(now)s
    FROM picked
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT (SELECT id FROM picked), (SELECT id FROM given)
"""
SWEEP: Final = """
UPDATE annotations_lease SET outcome = 'lapsed', seat = NULL, ended_at = %(now)s WHERE id IN (
    SELECT l.id FROM annotations_lease l JOIN annotations_task t ON t.id = l.task_id
    WHERE l.outcome = 'held' AND l.until < %(now)s AND t.project_id = %(project)s
    FOR UPDATE OF l SKIP LOCKED)
RETURNING task_id
"""


def lease_next(
    *, person: User, project: Project, kinds: Sequence[Task.Kind] | None = None, now: datetime | None = None
) -> Lease | None:
    """The task this person should do now: the one in hand, else the best open one, now in hand; None if there is none.

    A task in hand that is not of the `kinds` asked for is given back; its draft stays. What goes before the statement
    has transactions of its own, so that no lock is held while it waits.
    """
    now = now or timezone.now()
    kinds = list(kinds or Task.Kind)
    sweep_lapsed(project=project, now=now)
    lease_id = _in_hand(person, project, kinds, now) or _take(person, project, kinds, now)
    return lease_with_task(lease_id) if lease_id else None


def lease_with_task(lease_id: int) -> Lease:
    return Lease.objects.select_related("person", "task__project", "task__prompt", "task__demonstration__response").get(
        pk=lease_id
    )


def lease_end(project: Project, now: datetime) -> datetime:
    return now + timedelta(minutes=project.lease_minutes)


def sweep_lapsed(*, project: Project, now: datetime) -> None:
    """End the leases whose time is over; submissions in reserve step into the places that become free."""
    with connection.cursor() as cursor:
        cursor.execute(SWEEP, {"project": project.pk, "now": now})
        freed = {row[0] for row in cursor.fetchall()}
    if not freed:
        return
    reserve = Lease.objects.filter(task_id__in=freed, outcome=Lease.Outcome.SUBMITTED, seat=None)
    for task in Task.objects.filter(leases__in=reserve).distinct().order_by("id"):
        with transaction.atomic():
            fill_places(lock_task(task))


def _in_hand(person: User, project: Project, kinds: Sequence[Task.Kind], now: datetime) -> int | None:
    mine = Lease.objects.filter(person=person, outcome=Lease.Outcome.HELD, task__project=project)
    wanted = None
    for lease_id, kind in mine.order_by("id").values_list("id", "task__kind"):
        if kind not in kinds:
            release(lease=lease_with_task(lease_id), now=now)
        elif wanted is None and renewed(lease_id, lease_end(project, now)):
            wanted = lease_id
    return wanted


def _take(person: User, project: Project, kinds: Sequence[Task.Kind], now: datetime) -> int | None:
    """Run the statement until it gives a lease or finds no task. Locked tasks are passed over first and waited for
    only when nothing else is left, so that nobody is sent away while a place is free."""
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
            picked, given = cursor.fetchone()
        if given:
            return int(given)
        if picked is None and not wait:
            return None
        if picked is None:
            wait = ""


def renewed(lease_id: int, until: datetime) -> bool:
    """Whether the lease was still held; it is now held until `until`."""
    return bool(Lease.objects.filter(pk=lease_id, outcome=Lease.Outcome.HELD).update(until=until))


@transaction.atomic
def renew_lease(*, lease: Lease, now: datetime | None = None) -> Lease:
    """Keep the hold for another while; take up again one that ended where a place is still free. See its `outcome`."""
    now = now or timezone.now()
    until = lease_end(lease.task.project, now)
    if not renewed(lease.pk, until):
        take_up_again(lease=lease, until=until)
    lease.refresh_from_db(fields=["outcome", "seat", "until"])
    return lease


def take_up_again(*, lease: Lease, until: datetime) -> None:
    """Put a lease that ended without a word back on a free place, unless the person was given the task anew since."""
    task = lock_task(lease.task)
    place = free_place(task)
    since = Lease.objects.filter(task=task, person_id=lease.person_id, pk__gt=lease.pk)
    if place is not None and not since.exists():
        Lease.objects.filter(pk=lease.pk, outcome__in=[Lease.Outcome.LAPSED, Lease.Outcome.RETURNED]).update(
            outcome=Lease.Outcome.HELD, seat=place, until=until, ended_at=None
        )


@transaction.atomic
def release(*, lease: Lease, now: datetime | None = None) -> None:
    """Give the task back; it may come again. The draft stays."""
    _end(lease, Lease.Outcome.RETURNED, "", now)


@transaction.atomic
def skip(*, lease: Lease, reason: str = "", now: datetime | None = None) -> None:
    """Not for this person: the task never comes back to them."""
    _end(lease, Lease.Outcome.SKIPPED, clean_text(reason).strip(), now)
    Draft.objects.filter(task_id=lease.task_id, person_id=lease.person_id).delete()


def _end(lease: Lease, outcome: Lease.Outcome, reason: str, now: datetime | None) -> None:
    task = lock_task(lease.task)
    lease.refresh_from_db(fields=["outcome", "seat"])
    if lease.outcome == Lease.Outcome.SUBMITTED:
        raise Conflict("You have already answered this task. To change your answer, take it back from your history.")
    reason = "" if is_erased(task) else reason
    lease.outcome, lease.seat, lease.skip_reason, lease.ended_at = outcome, None, reason, now or timezone.now()
    lease.save(update_fields=["outcome", "seat", "skip_reason", "ended_at"])
    fill_places(task)


@transaction.atomic
def save_draft(*, lease: Lease, content: dict[str, Any], revision: int, now: datetime | None = None) -> bool:
    """Keep what was typed. False when a newer draft is there already or the task was answered since.

    Args:
        content: the form's fields by name.
        revision: when it was typed, milliseconds since the epoch; an older one never replaces a newer one.
    """
    now = now or timezone.now()
    answered = Lease.objects.filter(
        task_id=lease.task_id, person_id=lease.person_id, outcome=Lease.Outcome.SUBMITTED
    ).exists()
    if answered:
        return False
    cleaned = {
        clean_text(name): clean_text(value) if isinstance(value, str) else value for name, value in content.items()
    }
    draft, made = Draft.objects.select_for_update().get_or_create(
        task_id=lease.task_id,
        person_id=lease.person_id,
        defaults={"content": cleaned, "revision": revision, "updated_at": now},
    )
    if is_erased(lease.task):  # asked last: an insertion waits for an erasure that is under way
        draft.delete()
        return False
    if made:
        return True
    if draft.revision > revision:
        return False
    draft.content, draft.revision, draft.updated_at = cleaned, revision, now
    draft.save()
    return True


def is_erased(task: Task) -> bool:
    """Whether the words that the task is about were removed for good."""
    return Task.objects.filter(pk=task.pk, prompt__erased_at__isnull=False).exists()
