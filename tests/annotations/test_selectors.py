"""Counts that are derived, and a person's own labels."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from annotations.models import Demonstration, Lease, Task
from annotations.selectors import (
    history,
    label_counts,
    label_ids,
    labels_wanted,
    open_task_counts,
    people_progress,
    today_count,
)
from annotations.services.labels import submit_demonstration, submit_ranking, undo
from annotations.services.leases import lease_next, skip
from tests import factories
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db


def test_places_wanted_are_those_that_no_submission_holds(project: Project, ann: User, ben: User):
    factories.task(project, Task.Kind.RANK, overlap=3)
    factories.task(project, Task.Kind.WRITE, overlap=1)
    lease = lease_next(person=ann, project=project, kinds=[Task.Kind.RANK])
    submit_ranking(lease=lease, token=uuid.uuid4(), groups=[lease.order_shown])
    lease_next(person=ben, project=project, kinds=[Task.Kind.RANK])
    assert labels_wanted(project) == {"write": 1, "rank": 2, "review": 0}
    assert open_task_counts(project) == {"write": 1, "rank": 1, "review": 0}
    assert label_counts(project) == {"write": 0, "rank": 1, "review": 0}


def test_progress_says_what_each_person_gave(project: Project, ann: User, ben: User):
    now = timezone.now()
    for _ in range(3):
        factories.task(project)
    lease = lease_next(person=ann, project=project)
    submit_demonstration(lease=lease, token=uuid.uuid4(), text="One.", active_seconds=30)
    skip(lease=lease_next(person=ann, project=project))
    lease = lease_next(person=ben, project=project)
    submit_demonstration(lease=lease, token=uuid.uuid4(), text="Old.", active_seconds=5, now=now - timedelta(days=2))
    of_ann, of_ben = people_progress(project)
    assert (of_ann.person, of_ann.write, of_ann.skipped, of_ann.today, of_ann.seconds) == (ann, 1, 1, 1, 30)
    assert (of_ben.person, of_ben.labels, of_ben.today) == (ben, 1, 0)
    assert [p.write for p in people_progress(project, since=now - timedelta(days=1))] == [1]


def test_today_counts_since_midnight_and_not_what_was_taken_back(project: Project, ann: User):
    for _ in range(3):
        factories.task(project)
    labels = [
        submit_demonstration(lease=lease_next(person=ann, project=project), token=uuid.uuid4(), text=f"{n}.")
        for n in range(3)
    ]
    Lease.objects.filter(pk=labels[0].lease_id).update(ended_at=timezone.now() - timedelta(days=1))
    assert today_count(ann, project) == 2
    undo(label=labels[2], by=ann)
    assert (today_count(ann, project), today_count(ann), today_count(ann, factories.project())) == (1, 1, 0)


def test_label_ids_are_those_that_snapshots_use(project: Project, ann: User):
    demonstration = factories.demonstration(project, ann, state=Demonstration.State.ACCEPTED)
    factories.demonstration(project, ann)
    ranking = factories.ranking(project, ann)
    assert label_ids(ann, project) == {
        "demonstrations": [f"demonstration:{demonstration.pk}"],
        "rankings": [f"ranking:{ranking.pk}"],
    }


def test_history_is_newest_first_and_goes_on_by_page(project: Project, ann: User):
    for kind in (Task.Kind.WRITE, Task.Kind.RANK, Task.Kind.WRITE):
        factories.task(project, kind)
    labels = []
    while lease := lease_next(person=ann, project=project):
        if lease.task.kind == Task.Kind.WRITE:
            labels.append(submit_demonstration(lease=lease, token=uuid.uuid4(), text="A toy."))
        else:
            labels.append(submit_ranking(lease=lease, token=uuid.uuid4(), groups=[lease.order_shown]))
    assert history(ann, project) == labels[::-1]
    first_page = history(ann, project, limit=2)
    assert history(ann, project, before=first_page[-1].created_at, limit=2) == labels[:1]
