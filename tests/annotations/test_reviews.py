"""How demonstrations come to be accepted, corrected or rejected."""

from __future__ import annotations

import uuid
from typing import Any, cast

import pytest

from annotations.models import Demonstration, Review, Task
from annotations.selectors import accepted_demonstrations
from annotations.services.labels import submit_review, withdraw_label
from annotations.services.leases import lease_next
from annotations.services.tasks import open_review_task
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.errors import BadInput

pytestmark = pytest.mark.django_db
State = Demonstration.State
Verdict = Review.Verdict


@pytest.fixture
def demonstration(project: Project, ann: User) -> Demonstration:
    return factories.demonstration(project, ann, "A kite flys.")


def review(project: Project, person: User, verdict: str, **fields: Any) -> Review:
    lease = existing(lease_next(person=person, project=project, kinds=[Task.Kind.REVIEW]))
    return submit_review(lease=lease, token=uuid.uuid4(), verdict=cast("Review.Verdict", verdict), **fields)


def state(demonstration: Demonstration) -> str:
    demonstration.refresh_from_db()
    return demonstration.state


def test_an_accepted_demonstration_may_be_learned_from(
    project: Project, demonstration: Demonstration, ben: User
) -> None:
    open_review_task(demonstration=demonstration)
    review(project, ben, Verdict.ACCEPT)
    assert list(accepted_demonstrations(project)) == [demonstration]


def test_a_rejected_one_may_not(project: Project, demonstration: Demonstration, ben: User) -> None:
    open_review_task(demonstration=demonstration)
    review(project, ben, Verdict.REJECT, comment="Wrong.")
    assert state(demonstration) == State.REJECTED
    assert not accepted_demonstrations(project).exists()


def test_a_corrected_version_stands_in_the_originals_place(
    project: Project, demonstration: Demonstration, ben: User
) -> None:
    open_review_task(demonstration=demonstration)
    made = review(project, ben, Verdict.EDIT, text="\n    A kite flies. ")
    corrected = accepted_demonstrations(project).get()
    assert corrected == made.corrected
    assert (corrected.author, corrected.response.text) == (ben, "    A kite flies.")
    assert state(demonstration) == State.REPLACED


@pytest.mark.parametrize(("text", "why"), [("", "write the reply"), ("A kite flys.", "unchanged")])
def test_accepting_with_changes_needs_changes(
    project: Project, demonstration: Any, ben: User, text: str, why: str
) -> None:
    open_review_task(demonstration=demonstration)
    with pytest.raises(BadInput, match=why):
        review(project, ben, Verdict.EDIT, text=text)
    assert not Review.objects.exists()


def test_rejecting_needs_a_word_of_why(project: Project, demonstration: Demonstration, ben: User) -> None:
    open_review_task(demonstration=demonstration)
    with pytest.raises(BadInput, match="why you reject"):
        review(project, ben, Verdict.REJECT, comment=" ")


def test_an_unknown_verdict_is_refused(project: Project, demonstration: Demonstration, ben: User) -> None:
    open_review_task(demonstration=demonstration)
    with pytest.raises(BadInput, match="Choose"):
        review(project, ben, "perhaps")


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        (["accept"], State.PENDING),
        (["accept", "accept", "reject"], State.ACCEPTED),
        (["accept", "reject", "reject"], State.REJECTED),
        (["accept", "edit", "reject"], State.REPLACED),
    ],
)
def test_of_three_reviews_the_majority_decides(
    project: Project, demonstration: Demonstration, verdicts: list[str], outcome: str
) -> None:
    open_review_task(demonstration=demonstration, overlap=3)
    for verdict in verdicts:
        review(project, factories.person(), verdict, text="A kite flies.", comment="Because.")
    assert state(demonstration) == outcome


def test_an_even_vote_does_not_accept(project: Project, demonstration: Demonstration) -> None:
    open_review_task(demonstration=demonstration, overlap=2)
    for verdict in (Verdict.ACCEPT, Verdict.REJECT):
        review(project, factories.person(), verdict, comment="Because.")
    assert state(demonstration) == State.REJECTED


def test_of_two_corrected_versions_the_newest_counts(project: Project, demonstration: Demonstration) -> None:
    open_review_task(demonstration=demonstration, overlap=2)
    first = review(project, factories.person(), Verdict.EDIT, text="A kite flies.")
    second = review(project, factories.person(), Verdict.EDIT, text="A kite flies high.")
    assert list(accepted_demonstrations(project)) == [second.corrected]
    assert state(existing(first.corrected)) == State.REPLACED


def test_a_withdrawn_review_no_longer_decides(project: Project, demonstration: Demonstration, ben: User) -> None:
    open_review_task(demonstration=demonstration)
    made = review(project, ben, Verdict.ACCEPT)
    withdraw_label(label=made)
    assert state(demonstration) == State.PENDING
