"""Half-made labels are kept as they are typed."""

from __future__ import annotations

import uuid

import pytest

from annotations.models import Draft, Lease, Task
from annotations.selectors import draft_for, unfinished
from annotations.services.labels import submit_demonstration
from annotations.services.leases import lease_next, release, save_draft, skip
from tests import factories
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def lease(project: Project, ann: User) -> Lease:
    factories.task(project, overlap=2)
    return lease_next(person=ann, project=project)


def test_a_draft_is_kept_for_its_author_alone(lease: Lease, project: Project, ben: User):
    assert save_draft(lease=lease, content={"text": "A ki\x00te"}, revision=1)
    assert draft_for(lease).content == {"text": "A kite"}
    assert draft_for(lease_next(person=ben, project=project)) is None


def test_the_newest_typing_stays_whatever_arrives_last(lease: Lease):
    assert save_draft(lease=lease, content={"text": "A kite"}, revision=20)
    assert not save_draft(lease=lease, content={"text": "A ki"}, revision=10)
    assert draft_for(lease).content == {"text": "A kite"}


def test_a_draft_survives_giving_the_task_back(lease: Lease, project: Project, ann: User):
    save_draft(lease=lease, content={"text": "A kite"}, revision=1)
    release(lease=lease)
    assert draft_for(lease_next(person=ann, project=project)).content == {"text": "A kite"}


def test_a_draft_that_arrives_after_the_submission_is_dropped(lease: Lease):
    submit_demonstration(lease=lease, token=uuid.uuid4(), text="A kite flies.")
    assert not save_draft(lease=lease, content={"text": "A kite"}, revision=1)
    assert not Draft.objects.exists()


def test_skipping_drops_the_draft(lease: Lease):
    save_draft(lease=lease, content={"text": "A kite"}, revision=1)
    skip(lease=lease)
    assert not Draft.objects.exists()


def test_unfinished_work_is_listed_apart_from_what_is_in_hand(lease: Lease, project: Project, ann: User):
    save_draft(lease=lease, content={"text": "A kite"}, revision=1)
    assert [draft.task for draft in unfinished(ann, project)] == [lease.task]
    assert not unfinished(ann, project, than=lease)
    Task.objects.update(state=Task.State.WITHDRAWN)
    assert not unfinished(ann, project)
