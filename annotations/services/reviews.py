"""How a demonstration comes to be accepted or rejected."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from annotations.models import Demonstration, Response, Review, Task
from annotations.services.tasks import open_review_task, withdraw_tasks
from webapp.errors import BadInput, Conflict
from webapp.text import trim_reply

ACCEPTING = (Review.Verdict.ACCEPT, Review.Verdict.EDIT)


def call_for_review(*, demonstration: Demonstration) -> None:
    """Open a review task for a new demonstration, or accept it at once where the project wants no reviews."""
    if demonstration.prompt.project.review_overlap:
        open_review_task(demonstration=demonstration)
    else:
        demonstration.state = Demonstration.State.ACCEPTED
        demonstration.save(update_fields=["state"])


def correct(*, review: Review, text: str) -> Demonstration:
    """The corrected version that an EDIT verdict brings, by the reviewer. It counts once the reviews settle."""
    text = trim_reply(text)
    if not text:
        raise BadInput("To accept with changes, write the reply as it should be.")
    if text == trim_reply(review.demonstration.response.text):
        raise BadInput("The reply is unchanged. Choose accept, or change it.")
    reply = Response.objects.create(prompt=review.prompt, text=text, author=review.author, created_at=review.created_at)
    return Demonstration.objects.create(
        prompt=review.prompt,
        author=review.author,
        response=reply,
        token=uuid4(),
        guidelines=review.guidelines,
        active_seconds=review.active_seconds,
        created_at=review.created_at,
        source_ref=f"demonstration:{review.demonstration.pk}",
    )


def settle_reviews(*, demonstration: Demonstration) -> None:
    """Set the states of a demonstration and of its corrected versions from its reviews.

    Decided when as many reviews are in as its task wants: accepted with more accepting than rejecting verdicts, else
    rejected. Accepted with changes, the newest corrected version replaces it. Undecided, all wait.
    """
    state = Demonstration.State
    reviews = list(
        Review.objects.filter(demonstration=demonstration, retracted_at=None, lease__seat__isnull=False)
        .select_related("corrected")
        .order_by("id")
    )
    needed = max((task.overlap for task in demonstration.review_tasks.all()), default=1)
    corrections = [review.corrected for review in reviews if review.corrected is not None]
    accepting = sum(review.verdict in ACCEPTING for review in reviews)
    if len(reviews) < needed:
        original, of_corrections, of_newest = state.PENDING, state.PENDING, state.PENDING
    elif 2 * accepting <= len(reviews):
        original, of_corrections, of_newest = state.REJECTED, state.REJECTED, state.REJECTED
    else:
        original = state.REPLACED if corrections else state.ACCEPTED
        of_corrections, of_newest = state.REPLACED, state.ACCEPTED
    _set(demonstration, original)
    for version in corrections:
        _set(version, of_newest if version is corrections[-1] else of_corrections)


def _set(demonstration: Demonstration, state: Demonstration.State) -> None:
    if demonstration.state != state:
        demonstration.state = state
        demonstration.save(update_fields=["state"])


def drop_reviews(*, demonstration: Demonstration, now: datetime) -> None:
    """Nobody is asked any more about a demonstration that was taken back. Conflict where someone has answered."""
    if Review.objects.filter(demonstration=demonstration, retracted_at=None).exists():
        raise Conflict("Someone has reviewed this reply already, so it stays.")
    withdraw_tasks(tasks=Task.objects.filter(demonstration=demonstration), now=now)


def drop_correction(*, review: Review, now: datetime) -> None:
    """A review that was taken back takes its corrected version along, and the demonstration waits again."""
    if review.corrected is not None:
        review.corrected.retracted_at = now
        review.corrected.save(update_fields=["retracted_at"])
    settle_reviews(demonstration=review.demonstration)
