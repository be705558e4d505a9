"""Who is given what, and for how long.

Over 300 lines: all cases share the clock and the queue of tasks.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from annotations.models import Lease, Task
from annotations.services.labels import submit_demonstration, submit_ranking
from annotations.services.leases import LEASE_NEXT, lease_next, release, renew_lease, skip, unskip
from annotations.services.prompts import withdraw_prompts
from annotations.services.tasks import open_review_task, withdraw_tasks
from tests import factories
from tests.narrowing import existing
from webapp.accounts.memberships import change_role, remove_member
from webapp.accounts.models import Project, Role, User
from webapp.accounts.services import archive_project
from webapp.errors import Conflict

pytestmark = pytest.mark.django_db
Outcome = Lease.Outcome


@pytest.fixture
def noon() -> datetime:
    return timezone.now().replace(hour=12, minute=0)


def later(noon: datetime, minutes: float) -> datetime:
    return noon + timedelta(minutes=minutes)


def test_the_best_open_task_comes_first(project: Project, ann: User) -> None:
    factories.task(project)
    urgent = factories.task(project, priority=5)
    assert existing(lease_next(person=ann, project=project)).task == urgent


def test_among_equals_the_oldest_comes_first(project: Project, ann: User) -> None:
    oldest = factories.task(project)
    factories.task(project)
    assert existing(lease_next(person=ann, project=project)).task == oldest


def test_asking_again_gives_the_task_in_hand_for_another_while(project: Project, ann: User, noon: datetime) -> None:
    factories.task(project)
    factories.task(project)
    first = lease_next(person=ann, project=project, now=noon)
    again = existing(lease_next(person=ann, project=project, now=later(noon, 10)))
    assert again == first
    assert again.until == later(noon, 10 + project.lease_minutes)


def test_only_the_kinds_asked_for_are_given(project: Project, ann: User) -> None:
    factories.task(project, Task.Kind.WRITE)
    rank = factories.task(project, Task.Kind.RANK)
    assert existing(lease_next(person=ann, project=project, kinds=[Task.Kind.RANK])).task == rank
    assert lease_next(person=ann, project=project, kinds=[Task.Kind.REVIEW]) is None


def test_a_task_in_hand_of_another_kind_is_given_back(project: Project, ann: User, ben: User) -> None:
    write = factories.task(project, Task.Kind.WRITE)
    rank = factories.task(project, Task.Kind.RANK)
    assert existing(lease_next(person=ann, project=project)).task == write
    assert existing(lease_next(person=ann, project=project, kinds=[Task.Kind.RANK])).task == rank
    assert existing(lease_next(person=ben, project=project)).task == write


def test_another_projects_task_is_not_given(project: Project, ann: User) -> None:
    factories.task(factories.project())
    assert lease_next(person=ann, project=project) is None


def test_a_task_of_one_place_is_given_to_one_person(project: Project, ann: User, ben: User) -> None:
    factories.task(project, overlap=1)
    assert lease_next(person=ann, project=project)
    assert lease_next(person=ben, project=project) is None


def test_a_task_of_two_places_is_given_to_two(project: Project, ann: User, ben: User, mo: User) -> None:
    task = factories.task(project, overlap=2)
    assert existing(lease_next(person=ann, project=project)).task == task
    assert existing(lease_next(person=ben, project=project)).task == task
    assert lease_next(person=mo, project=project) is None


def test_replies_are_shown_in_an_order_of_each_persons_own(project: Project) -> None:
    task = factories.task(project, Task.Kind.RANK, replies=6, overlap=9)
    people = [factories.person() for _ in range(9)]
    orders = [existing(lease_next(person=person, project=project)).order_shown for person in people]
    ids = {response.pk for response in task.responses.all()}
    assert all(set(order) == ids and len(order) == 6 for order in orders)
    assert len({tuple(order) for order in orders}) > 1  # all nine alike: once in 720^8


def test_a_person_never_ranks_their_own_reply(project: Project, ann: User, ben: User) -> None:
    prompt = factories.prompt(project)
    replies = [factories.response(prompt, author=ann), factories.response(prompt)]
    task = factories.task(project, Task.Kind.RANK, prompt=prompt, responses=replies)
    assert lease_next(person=ann, project=project) is None
    assert existing(lease_next(person=ben, project=project)).task == task


def test_a_person_never_reviews_their_own_demonstration(project: Project, ann: User, ben: User) -> None:
    task = open_review_task(demonstration=factories.demonstration(project, ann))
    assert lease_next(person=ann, project=project) is None
    assert existing(lease_next(person=ben, project=project)).task == task


def test_an_answered_task_does_not_come_back(project: Project, ann: User) -> None:
    factories.task(project, overlap=3)
    lease = existing(lease_next(person=ann, project=project))
    submit_demonstration(lease=lease, token=uuid.uuid4(), text="A kite is a toy.")
    assert lease_next(person=ann, project=project) is None


def test_a_skipped_task_goes_to_someone_else_and_never_comes_back(project: Project, ann: User, ben: User) -> None:
    task = factories.task(project, overlap=1)
    skip(lease=existing(lease_next(person=ann, project=project)), reason=" Not my field.\x00 ")
    assert Lease.objects.get(person=ann).skip_reason == "Not my field."
    assert lease_next(person=ann, project=project) is None
    assert existing(lease_next(person=ben, project=project)).task == task


def test_a_task_given_back_may_come_again(project: Project, ann: User) -> None:
    task = factories.task(project)
    release(lease=existing(lease_next(person=ann, project=project)))
    assert existing(lease_next(person=ann, project=project)).task == task


def test_an_answered_task_cannot_be_skipped_afterwards(project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    submit_demonstration(lease=lease, token=uuid.uuid4(), text="A toy.")
    with pytest.raises(Conflict):
        skip(lease=lease)


def test_a_lapsed_task_goes_to_someone_else(project: Project, ann: User, ben: User, noon: datetime) -> None:
    task = factories.task(project)
    lease = existing(lease_next(person=ann, project=project, now=noon))
    assert lease_next(person=ben, project=project, now=later(noon, 14)) is None
    assert existing(lease_next(person=ben, project=project, now=later(noon, 16))).task == task
    lease.refresh_from_db()
    assert (lease.outcome, lease.seat) == (Outcome.LAPSED, None)


def test_renewing_keeps_the_task(project: Project, ann: User, ben: User, noon: datetime) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project, now=noon))
    renew_lease(lease=lease, now=later(noon, 14))
    assert lease_next(person=ben, project=project, now=later(noon, 28)) is None


def test_a_lapsed_task_is_taken_up_again_while_nobody_else_has_it(
    project: Project, ann: User, ben: User, noon: datetime
) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project, now=noon))
    factories.task(project, overlap=1)
    lease_next(person=ben, project=project, kinds=[Task.Kind.RANK], now=later(noon, 20))  # clears what lapsed
    lease.refresh_from_db()
    assert lease.outcome == Outcome.LAPSED
    assert renew_lease(lease=lease, now=later(noon, 21)).outcome == Outcome.HELD
    assert lease.seat == 1


def test_a_lapsed_task_that_someone_else_has_stays_lapsed(
    project: Project, ann: User, ben: User, noon: datetime
) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project, now=noon))
    lease_next(person=ben, project=project, now=later(noon, 20))
    assert renew_lease(lease=lease, now=later(noon, 21)).outcome == Outcome.LAPSED


def test_renewing_does_not_bring_a_skipped_task_back(project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    skip(lease=lease)
    assert renew_lease(lease=lease).outcome == Outcome.SKIPPED


def test_a_full_task_is_not_given_any_more(project: Project, ann: User, ben: User) -> None:
    task = factories.task(project, Task.Kind.RANK, overlap=1)
    lease = existing(lease_next(person=ann, project=project))
    submit_ranking(lease=lease, token=uuid.uuid4(), groups=[lease.order_shown])
    task.refresh_from_db()
    assert task.state == Task.State.FULL
    assert lease_next(person=ben, project=project) is None


def test_a_withdrawn_task_is_taken_out_of_peoples_hands(project: Project, ann: User) -> None:
    task = factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    assert withdraw_tasks(tasks=Task.objects.filter(pk=task.pk)) == 1
    lease.refresh_from_db()
    assert (lease.outcome, lease.seat) == (Outcome.RETURNED, None)
    assert lease_next(person=ann, project=project) is None


def test_a_withdrawn_prompt_takes_its_tasks_along(project: Project, ann: User) -> None:
    task = factories.task(project)
    assert withdraw_prompts(prompts=project.prompts.all()) == 1
    task.refresh_from_db()
    assert task.state == Task.State.WITHDRAWN
    assert lease_next(person=ann, project=project) is None


def test_the_database_itself_refuses_a_second_lease_on_a_place(project: Project, ann: User, ben: User) -> None:
    task = factories.task(project, overlap=1)
    lease = existing(lease_next(person=ann, project=project))
    with pytest.raises(IntegrityError), transaction.atomic():
        Lease.objects.create(task=task, person=ben, until=lease.until, seat=1)


def test_the_statement_stops_at_the_first_task_that_fits_however_many_there_are(project: Project, ann: User) -> None:
    prompt = factories.prompt(project)
    Task.objects.bulk_create(Task(project=project, kind=Task.Kind.WRITE, prompt=prompt) for _ in range(3000))
    values: dict[str, Any] = {
        "project": project.pk,
        "person": ann.pk,
        "kinds": ["write"],
        "now": timezone.now(),
        "until": timezone.now(),
    }
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE annotations_task, annotations_lease, annotations_response, annotations_task_responses")
        cursor.execute("EXPLAIN (ANALYZE, COSTS OFF) " + LEASE_NEXT.format(wait="SKIP LOCKED"), values)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Index Scan using open_tasks" in plan
    assert "Sort Key: t.priority" not in plan


def test_a_skipped_task_can_be_taken_up_again(project: Project, ann: User, ben: User) -> None:
    task = factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    skip(lease=lease, reason="Not my field.")
    back = unskip(lease=lease)
    assert (back.outcome, back.seat, back.skip_reason) == (Outcome.HELD, 1, "")
    assert lease_next(person=ben, project=project) is None
    assert existing(lease_next(person=ann, project=project)).task == task
    with pytest.raises(Conflict, match="already"):
        unskip(lease=lease)


def test_a_skipped_task_comes_back_without_a_place_where_others_have_them_all(
    project: Project, ann: User, ben: User
) -> None:
    factories.task(project, overlap=1)
    lease = existing(lease_next(person=ann, project=project))
    skip(lease=lease)
    lease_next(person=ben, project=project)
    back = unskip(lease=lease)
    assert (back.outcome, back.seat) == (Outcome.LAPSED, None)


def test_a_skipped_task_that_was_withdrawn_does_not_come_back(project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    skip(lease=lease)
    withdraw_tasks(tasks=Task.objects.all())
    with pytest.raises(Conflict, match="closed"):
        unskip(lease=lease)


def test_an_archived_project_hands_out_nothing(project: Project, ann: User, ben: User) -> None:
    factories.task(project, overlap=2)
    lease = existing(lease_next(person=ann, project=project))
    skipped = existing(lease_next(person=ben, project=project))
    skip(lease=skipped)
    archive_project(project=Project.objects.get())
    assert lease_next(person=ann, project=project) is None  # whatever `project` was read as
    assert renew_lease(lease=lease).outcome == Outcome.HELD  # what is under way goes on
    release(lease=lease)
    assert renew_lease(lease=lease).outcome == Outcome.RETURNED
    with pytest.raises(Conflict, match="archived"):
        unskip(lease=skipped)


@pytest.mark.parametrize("way", ["removed", "demoted", "deactivated"])
def test_whoever_may_not_label_any_more_holds_no_place(
    project: Project, ada: User, ann: User, ben: User, way: str
) -> None:
    task = factories.task(project, overlap=1)
    lease = existing(lease_next(person=ann, project=project))
    assert lease_next(person=ben, project=project) is None
    if way == "removed":
        remove_member(project=project, user_id=ann.pk, by=ada)
    elif way == "demoted":
        change_role(project=project, user_id=ann.pk, role=Role.TESTER, by=ada)
    else:
        User.objects.filter(pk=ann.pk).update(is_active=False)
    assert existing(lease_next(person=ben, project=project)).task == task
    lease.refresh_from_db()
    assert (lease.outcome, lease.seat) == (Outcome.LAPSED, None)


def test_whoever_runs_the_installation_keeps_their_place_without_a_membership(
    project: Project, root: User, ann: User
) -> None:
    factories.task(project, overlap=1)
    assert lease_next(person=root, project=project)
    assert lease_next(person=ann, project=project) is None


def test_a_lease_knows_the_guidelines_of_its_time(project: Project, ann: User) -> None:
    factories.task(project)
    assert existing(existing(lease_next(person=ann, project=project)).guidelines).version == 1
