"""Counts that are derived, and a person's own labels."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from annotations.models import Demonstration, Lease, Ranking, Task
from annotations.selectors import (
    label_counts,
    label_ids,
    labels_given,
    labels_open_to,
    labels_wanted,
    open_task_counts,
    people_progress,
    recent_labels,
    today_count,
)
from annotations.services.labels import submit_demonstration, submit_ranking, undo
from annotations.services.leases import lease_next, skip
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db


def test_places_wanted_are_those_that_no_submission_holds(project: Project, ann: User, ben: User) -> None:
    factories.task(project, Task.Kind.RANK, overlap=3)
    factories.task(project, Task.Kind.WRITE, overlap=1)
    lease = existing(lease_next(person=ann, project=project, kinds=[Task.Kind.RANK]))
    submit_ranking(lease=lease, token=uuid.uuid4(), groups=[lease.order_shown])
    lease_next(person=ben, project=project, kinds=[Task.Kind.RANK])
    assert labels_wanted(project) == {"write": 1, "rank": 2, "review": 0}
    assert open_task_counts(project) == {"write": 1, "rank": 1, "review": 0}
    assert label_counts(project) == {"write": 0, "rank": 1, "review": 0}


def test_progress_says_what_each_person_gave(project: Project, ann: User, ben: User) -> None:
    now = timezone.now()
    for _ in range(3):
        factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    submit_demonstration(lease=lease, token=uuid.uuid4(), text="One.", active_seconds=30)
    skip(lease=existing(lease_next(person=ann, project=project)))
    lease = existing(lease_next(person=ben, project=project))
    submit_demonstration(lease=lease, token=uuid.uuid4(), text="Old.", active_seconds=5, now=now - timedelta(days=2))
    of_ann, of_ben = people_progress(project)
    assert (of_ann.person, of_ann.write, of_ann.skipped, of_ann.today, of_ann.seconds) == (ann, 1, 1, 1, 30)
    assert (of_ben.person, of_ben.labels, of_ben.today) == (ben, 1, 0)
    assert [p.write for p in people_progress(project, since=now - timedelta(days=1))] == [1]


def test_today_counts_since_midnight_and_not_what_was_taken_back(project: Project, ann: User) -> None:
    for _ in range(3):
        factories.task(project)
    labels = [
        submit_demonstration(lease=existing(lease_next(person=ann, project=project)), token=uuid.uuid4(), text=f"{n}.")
        for n in range(3)
    ]
    Lease.objects.filter(pk=existing(labels[0].lease_id)).update(ended_at=timezone.now() - timedelta(days=1))
    assert today_count(ann, project) == 2
    undo(label=labels[2], by=ann)
    assert (today_count(ann, project), today_count(ann), today_count(ann, factories.project())) == (1, 1, 0)


def everything_handed_to(person: User, project: Project) -> dict[str, int]:
    """How many tasks of each kind `lease_next` hands to the person, one after the other."""
    handed = dict.fromkeys(Task.Kind.values, 0)
    while lease := lease_next(person=person, project=project):
        handed[lease.task.kind] += 1
        lease.outcome, lease.seat = Lease.Outcome.SKIPPED, None
        lease.save()
    return handed


def test_the_labels_open_to_a_person_are_those_they_are_handed(
    project: Project, ann: User, ben: User, mo: User
) -> None:
    by_ann = factories.demonstration(project, ann)
    factories.task(project, Task.Kind.REVIEW, prompt=by_ann.prompt, demonstration=by_ann)
    own_reply = factories.prompt(project)
    replies = [factories.response(own_reply, author=ann), factories.response(own_reply)]
    factories.task(project, Task.Kind.RANK, prompt=own_reply, responses=replies)
    for _ in range(4):
        factories.task(project, Task.Kind.RANK, overlap=2)
    factories.task(project, state=Task.State.WITHDRAWN)
    factories.task(project, overlap=1)
    lease = existing(lease_next(person=ann, project=project, kinds=[Task.Kind.RANK]))
    submit_ranking(lease=lease, token=uuid.uuid4(), groups=[lease.order_shown])
    skip(lease=existing(lease_next(person=ann, project=project, kinds=[Task.Kind.RANK])))
    lease_next(person=ann, project=project, kinds=[Task.Kind.RANK])  # stays in hand
    lease_next(person=ben, project=project, kinds=[Task.Kind.WRITE])
    lapsed = existing(lease_next(person=mo, project=project, kinds=[Task.Kind.REVIEW]))
    Lease.objects.filter(pk=lapsed.pk).update(until=timezone.now() - timedelta(minutes=1))
    for person, expected in [
        (ann, {"write": 0, "rank": 2, "review": 0}),  # ben writes; the rest is answered, skipped or her own
        (ben, {"write": 1, "rank": 5, "review": 1}),  # what lapsed for mo is free again
    ]:
        assert labels_open_to(person, project) == expected
        assert everything_handed_to(person, project) == expected
        assert not any(labels_open_to(person, project).values())


def test_an_archived_project_opens_only_what_is_in_hand(project: Project, ann: User) -> None:
    factories.task(project)
    factories.task(project)
    lease_next(person=ann, project=project)
    project.archived_at = timezone.now()
    assert labels_open_to(ann, project)["write"] == 1


def test_labels_given_include_those_of_today_and_not_what_was_taken_back(project: Project, ann: User) -> None:
    for _ in range(2):
        factories.task(project)
        made = submit_demonstration(
            lease=existing(lease_next(person=ann, project=project)), token=uuid.uuid4(), text="So."
        )
    assert labels_given(ann, project) == today_count(ann, project) == 2
    undo(label=made, by=ann)
    assert labels_given(ann, project) == 1


def test_label_ids_are_those_that_snapshots_use(project: Project, ann: User) -> None:
    demonstration = factories.demonstration(project, ann, state=Demonstration.State.ACCEPTED)
    factories.demonstration(project, ann)
    ranking = factories.ranking(project, ann)
    judgment = factories.judgment(project, ann)
    assert label_ids(ann, project) == {
        "demonstrations": [f"demonstration:{demonstration.pk}"],
        "rankings": [f"ranking:{ranking.pk}"],
        "judgments": [f"judgment:{judgment.pk}"],
    }


def test_history_is_newest_first_and_goes_on_by_page(project: Project, ann: User) -> None:
    for kind in (Task.Kind.WRITE, Task.Kind.RANK, Task.Kind.WRITE):
        factories.task(project, kind)
    labels: list[Demonstration | Ranking] = []
    while lease := lease_next(person=ann, project=project):
        if lease.task.kind == Task.Kind.WRITE:
            labels.append(submit_demonstration(lease=lease, token=uuid.uuid4(), text="A toy."))
        else:
            labels.append(submit_ranking(lease=lease, token=uuid.uuid4(), groups=[lease.order_shown]))
    assert recent_labels(ann, project) == labels[::-1]
    first_page = recent_labels(ann, project, limit=2)
    assert recent_labels(ann, project, before=first_page[-1].created_at, limit=2) == labels[:1]
