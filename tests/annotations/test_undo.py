"""Taking a label back."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from annotations.models import Demonstration, Draft, Lease, Ranking, Review, Task
from annotations.selectors import accepted_demonstrations, usable_rankings
from annotations.services.labels import submit_demonstration, submit_ranking, submit_review, undo
from annotations.services.leases import lease_next
from annotations.services.records import record_ranking
from annotations.services.tasks import withdraw_tasks
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.errors import Conflict, NotAllowed

pytestmark = pytest.mark.django_db


def written(project: Project, person: User, text: str = "It flies.") -> Demonstration:
    factories.task(project)
    lease = existing(lease_next(person=person, project=project, kinds=[Task.Kind.WRITE]))
    return submit_demonstration(lease=lease, token=uuid.uuid4(), text=text)


def test_a_demonstration_returns_as_a_draft_in_its_authors_hands(project: Project, ann: User) -> None:
    label = written(project, ann, "It flies.")
    lease = undo(label=label, by=ann)
    label.refresh_from_db()
    assert label.retracted_at is not None
    assert (lease.outcome, lease.seat) == (Lease.Outcome.HELD, 1)
    assert Draft.objects.get().content == {"text": "It flies."}
    assert lease_next(person=ann, project=project) == lease


def test_nobody_is_asked_to_review_what_was_taken_back(project: Project, ann: User, ben: User) -> None:
    undo(label=written(project, ann), by=ann)
    assert lease_next(person=ben, project=project) is None


def test_a_ranking_returns_with_all_that_was_said(project: Project, ann: User) -> None:
    factories.task(project, Task.Kind.RANK, replies=3)
    lease = existing(lease_next(person=ann, project=project))
    a, b, c = lease.order_shown
    label = submit_ranking(
        lease=lease,
        token=uuid.uuid4(),
        groups=[[b], [a, c]],
        strength=2,
        ratings={a: 3},
        flags={c: ["rude"]},
        reason="b is kind",
    )
    again = undo(label=label, by=ann)
    assert again.order_shown == lease.order_shown
    assert Draft.objects.get().content == {
        f"rank_{b}": 1, f"rank_{a}": 2, f"rank_{c}": 2, f"rating_{a}": 3, f"flags_{c}": ["rude"],
        "strength": "2", "reason": "b is kind",
    }  # fmt: skip


def test_what_was_taken_back_can_be_sent_again_and_counts_once(project: Project, ann: User) -> None:
    Project.objects.update(review_overlap=0)
    lease = undo(label=written(project, ann), by=ann)
    label = submit_demonstration(lease=lease, token=uuid.uuid4(), text="It flies high.")
    assert list(accepted_demonstrations(project)) == [label]
    assert Task.objects.get().state == Task.State.FULL


def test_taking_back_keeps_the_place_from_others(project: Project, ann: User, ben: User) -> None:
    undo(label=written(project, ann), by=ann)
    assert lease_next(person=ben, project=project) is None


def test_a_label_in_reserve_returns_without_a_place(project: Project, ann: User, ben: User) -> None:
    factories.task(project, Task.Kind.RANK, overlap=1)
    now = timezone.now()
    late = existing(lease_next(person=ann, project=project, now=now))
    lease_next(person=ben, project=project, now=now + timedelta(hours=1))
    label = submit_ranking(lease=late, token=uuid.uuid4(), groups=[late.order_shown])
    lease = undo(label=label, by=ann)
    assert (lease.outcome, lease.seat) == (Lease.Outcome.LAPSED, None)
    submit_ranking(lease=lease, token=uuid.uuid4(), groups=[lease.order_shown])
    assert Ranking.objects.filter(retracted_at=None).count() == 1
    assert not usable_rankings(project).exists()


def test_only_the_author_takes_a_label_back(project: Project, ann: User, mo: User) -> None:
    with pytest.raises(NotAllowed):
        undo(label=written(project, ann), by=mo)


def test_a_label_is_taken_back_once(project: Project, ann: User) -> None:
    label = written(project, ann)
    undo(label=label, by=ann)
    with pytest.raises(Conflict):
        undo(label=label, by=ann)


def test_only_the_last_ten_can_be_taken_back(project: Project, ann: User) -> None:
    labels = [written(project, ann) for _ in range(11)]
    with pytest.raises(Conflict, match="last 10"):
        undo(label=labels[0], by=ann)
    undo(label=labels[1], by=ann)


def test_a_reviewed_demonstration_stays(project: Project, ann: User, ben: User) -> None:
    label = written(project, ann)
    lease = existing(lease_next(person=ben, project=project, kinds=[Task.Kind.REVIEW]))
    submit_review(lease=lease, token=uuid.uuid4(), verdict=Review.Verdict.ACCEPT)
    with pytest.raises(Conflict, match="reviewed"):
        undo(label=label, by=ann)


def test_taking_a_review_back_makes_the_demonstration_wait_again(project: Project, ann: User, ben: User) -> None:
    label = written(project, ann)
    lease = existing(lease_next(person=ben, project=project, kinds=[Task.Kind.REVIEW]))
    review = submit_review(lease=lease, token=uuid.uuid4(), verdict=Review.Verdict.EDIT, text="It flies well.")
    assert accepted_demonstrations(project).get() == review.corrected
    undo(label=review, by=ben)
    label.refresh_from_db()
    assert label.state == Demonstration.State.PENDING
    assert not accepted_demonstrations(project).exists()
    assert Draft.objects.get().content == {"verdict": "edit", "comment": "", "text": "It flies well."}


def test_a_label_of_a_closed_task_stays(project: Project, ann: User) -> None:
    label = written(project, ann)
    withdraw_tasks(tasks=Task.objects.all())
    with pytest.raises(Conflict, match="closed"):
        undo(label=label, by=ann)


def test_a_label_without_a_task_has_nothing_to_go_back_to(project: Project, ann: User) -> None:
    prompt = factories.prompt(project)
    a, b = factories.response(prompt), factories.response(prompt)
    label = record_ranking(prompt=prompt, responses=[a, b], groups=[[a.pk], [b.pk]], author=ann, token=uuid.uuid4())
    with pytest.raises(Conflict, match="did not come from a task"):
        undo(label=label, by=ann)
