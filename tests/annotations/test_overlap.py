"""Overlap is exact whatever people do, and at the same moment."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotations.models import Lease, Ranking, Task
from annotations.selectors import usable_rankings
from annotations.services.labels import submit_ranking, undo, withdraw_label
from annotations.services.leases import lease_next, release, renew_lease, skip
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.errors import TutelageError

PEOPLE = 8


def all_at_once(people: list[User], do: Callable[[User], Any]) -> list[Any]:
    """What each person got when all of them did the same thing at the same moment."""
    gate = threading.Barrier(len(people))

    def one(person: User) -> Any:
        try:
            gate.wait()
            return do(person)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(people)) as pool:
        return list(pool.map(one, people))


def live_places(task: Task) -> int:
    return Lease.objects.filter(task=task, seat__isnull=False).count()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("overlap", [1, 3, 8])
def test_eight_people_who_press_at_once_get_exactly_the_places_there_are(project: Project, overlap: int) -> None:
    task = factories.task(project, Task.Kind.RANK, overlap=overlap)
    people = [factories.member(project, factories.person()).user for _ in range(PEOPLE)]
    leases = all_at_once(people, lambda person: lease_next(person=person, project=project))
    assert sum(lease is not None for lease in leases) == overlap
    assert live_places(task) == overlap


@pytest.mark.django_db(transaction=True)
def test_eight_people_who_press_at_once_for_eight_tasks_get_one_each(project: Project) -> None:
    for _ in range(PEOPLE):
        factories.task(project, overlap=1)
    people = [factories.member(project, factories.person()).user for _ in range(PEOPLE)]
    leases = all_at_once(people, lambda person: lease_next(person=person, project=project))
    assert len({lease.task_id for lease in leases}) == PEOPLE


@pytest.mark.django_db(transaction=True)
def test_eight_people_who_label_until_nothing_is_left_fill_every_place_once(project: Project) -> None:
    tasks = [factories.task(project, Task.Kind.RANK, overlap=3) for _ in range(12)]
    people = [factories.member(project, factories.person()).user for _ in range(PEOPLE)]

    def work(person: User) -> int:
        done = 0
        while lease := lease_next(person=person, project=project):
            submit_ranking(lease=lease, token=uuid.uuid4(), groups=[[r] for r in lease.order_shown])
            done += 1
        return done

    assert sum(all_at_once(people, work)) == 36
    assert [Ranking.objects.filter(task=task).count() for task in tasks] == [3] * 12
    assert set(Task.objects.values_list("state", flat=True)) == {Task.State.FULL}
    assert usable_rankings(project).count() == 36


@pytest.mark.django_db(transaction=True)
def test_a_submission_sent_eight_times_at_once_counts_once(project: Project, ann: User) -> None:
    factories.task(project, Task.Kind.RANK, overlap=3)
    lease = existing(lease_next(person=ann, project=project))
    token = uuid.uuid4()
    sent = all_at_once([ann] * PEOPLE, lambda _: submit_ranking(lease=lease, token=token, groups=[lease.order_shown]))
    assert len({label.pk for label in sent}) == 1
    assert Ranking.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_when_a_lease_lapses_eight_people_who_wait_get_its_place_once(project: Project, ann: User) -> None:
    task = factories.task(project, overlap=1)
    now = timezone.now()
    lease_next(person=ann, project=project, now=now)
    people = [factories.member(project, factories.person()).user for _ in range(PEOPLE)]
    after = now + timedelta(minutes=project.lease_minutes + 1)
    leases = all_at_once(people, lambda person: lease_next(person=person, project=project, now=after))
    assert sum(lease is not None for lease in leases) == 1
    assert live_places(task) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["next", "submit", "late", "skip", "release", "renew", "undo", "withdraw", "wait"]),
        st.integers(0, 3),
    ),
    max_size=25,
)


@pytest.mark.django_db
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, overlap=st.integers(1, 3))
def test_whatever_four_people_do_no_task_has_more_than_its_places(
    project: Project, steps: list[Any], overlap: int
) -> None:
    people = [factories.member(project, factories.person()).user for _ in range(4)]
    tasks = [factories.task(project, Task.Kind.RANK, replies=2, overlap=overlap) for _ in range(2)]
    now = timezone.now()
    for step, who in steps:
        person = people[who]
        now += timedelta(minutes=20 if step == "wait" else 0.01)
        lease = Lease.objects.filter(person=person, task__in=tasks).order_by("-id").first()
        label = Ranking.objects.filter(author=person, retracted_at=None, task__in=tasks).order_by("-id").first()
        try:
            if step == "next":
                lease_next(person=person, project=project, now=now)
            elif step in ("submit", "late") and lease and (step == "late") == (lease.outcome == Lease.Outcome.LAPSED):
                submit_ranking(lease=lease, token=uuid.uuid4(), groups=[lease.order_shown], now=now)
            elif step == "skip" and lease:
                skip(lease=lease, now=now)
            elif step == "release" and lease:
                release(lease=lease, now=now)
            elif step == "renew" and lease:
                renew_lease(lease=lease, now=now)
            elif step == "undo" and label:
                undo(label=label, by=person, now=now)
            elif step == "withdraw" and label:
                withdraw_label(label=label, now=now)
        except TutelageError:
            pass  # a refusal is an answer; what counts is what holds afterwards
        for task in tasks:
            task.refresh_from_db()
            live = Ranking.objects.filter(task=task, retracted_at=None)
            counted = usable_rankings(project).filter(task=task)
            assert live_places(task) <= overlap
            assert counted.count() <= overlap
            assert (task.state == Task.State.FULL) == (counted.count() == overlap)
            reserve = live.count() - counted.count()
            assert not reserve or live_places(task) == overlap or step == "wait"
    Task.objects.filter(pk__in=[task.pk for task in tasks]).update(state=Task.State.WITHDRAWN)
