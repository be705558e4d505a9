"""What people say about a task, and taking it back.

Each submission locks its task: of two requests with one token the second finds the first's label and returns it.

Over 300 lines: submitting, replacing and undoing lock and check the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from django.db import transaction
from django.utils import timezone

from annotations.models import Demonstration, Draft, Flag, Judgment, Label, Lease, Ranking, Response, Review, Task
from annotations.selectors import recent_labels, replies_shown
from annotations.services.drafts import AlreadyAnswered
from annotations.services.leases import archived_at, lease_end
from annotations.services.reviews import call_for_review, correct, drop_correction, drop_reviews, settle_reviews
from annotations.services.seats import fill_seats, free_seat, is_erased, lock_task, settle_state
from webapp.accounts.models import User
from webapp.accounts.selectors import current_guidelines
from webapp.errors import BadInput, Conflict, NotAllowed
from webapp.text import clean_text, trim_reply

L = TypeVar("L", bound=Label)
AnyLabel = Demonstration | Ranking | Review
STRONGEST: Final = 3.0
RATINGS: Final = range(1, 8)
Check = Callable[[Lease], None]
"""What else must hold before a submission is taken; gets the person's newest lease, locked, and raises."""
UNDO_DEPTH: Final = 10


@transaction.atomic
def submit_demonstration(
    *,
    lease: Lease,
    token: UUID,
    text: str,
    active_seconds: float = 0.0,
    check: Check | None = None,
    now: datetime | None = None,
) -> Demonstration:
    """The person's own reply. Waits for a review if the project wants one."""
    now = now or timezone.now()
    lease, sent = _begin(lease, Demonstration, token, Task.Kind.WRITE, check)
    text = trim_reply(text)
    if sent:
        return sent_again(sent, text=text)
    if not text:
        raise BadInput("There is no reply yet: write one, or skip the task.")
    reply = Response.objects.create(prompt=lease.task.prompt, text=text, author=lease.person, created_at=now)
    label = Demonstration(response=reply, **_what_every_label_carries(lease, token, active_seconds, now))
    label.save()
    call_for_review(demonstration=label)
    _finish(lease, now)
    return label


@transaction.atomic
def submit_ranking(
    *,
    lease: Lease,
    token: UUID,
    groups: Sequence[Sequence[int]],
    strength: float | None = None,
    ratings: dict[int, int] | None = None,
    flags: dict[int, list[str]] | None = None,
    reason: str = "",
    active_seconds: float = 0.0,
    check: Check | None = None,
    now: datetime | None = None,
) -> Ranking:
    """An ordering of the replies that the task shows; one that was deleted meanwhile is not asked for anymore.

    Args:
        groups: response ids, best group first; replies in one group are tied.
        strength: how much better the best is than the rest, 0 to 3.
        ratings: by response id, 1 to 7.
        flags: by response id, values of `Flag`.
    """
    now = now or timezone.now()
    lease, sent = _begin(lease, Ranking, token, Task.Kind.RANK, check)
    shown_ids = [reply.pk for reply in replies_shown(lease)]
    if sent is None and len(shown_ids) < 2:
        raise Conflict("The other replies of this task were deleted, so there is nothing to compare. Skip the task.")
    content: dict[str, Any] = {
        "groups": whole_ranking(groups, shown_ids),
        "strength": valid_strength(strength),
        "ratings": valid_ratings(ratings or {}, shown_ids),
        "flags": valid_flags(flags or {}, shown_ids),
        "reason": clean_text(reason).strip(),
    }
    if sent:
        return sent_again(sent, **content)
    if len(content["groups"]) == 1 and strength:
        raise BadInput("All replies are tied, so none is better: rank one above the others, or leave out how much.")
    label = Ranking(**content, order_shown=shown_ids, **_what_every_label_carries(lease, token, active_seconds, now))
    label.save()
    _finish(lease, now)
    return label


@transaction.atomic
def submit_review(
    *,
    lease: Lease,
    token: UUID,
    verdict: Review.Verdict,
    text: str = "",
    comment: str = "",
    active_seconds: float = 0.0,
    check: Check | None = None,
    now: datetime | None = None,
) -> Review:
    """A second person's word on a demonstration; `text` is the corrected reply where the verdict is EDIT."""
    now = now or timezone.now()
    lease, sent = _begin(lease, Review, token, Task.Kind.REVIEW, check)
    comment = clean_text(comment).strip()
    if sent:
        return sent_again(sent, verdict=verdict, comment=comment, text=trim_reply(text))
    if verdict not in Review.Verdict.values:
        raise BadInput("Choose whether to accept the reply, accept it with changes, or reject it.")
    if verdict == Review.Verdict.REJECT and not comment:
        raise BadInput("Say in a word or two why you reject it; its author can learn from that.")
    label = Review(
        demonstration=lease.task.demonstration,
        verdict=verdict,
        comment=comment,
        **_what_every_label_carries(lease, token, active_seconds, now),
    )
    if verdict == Review.Verdict.EDIT:
        label.corrected = correct(review=label, text=text)
    label.save()
    _finish(lease, now)
    settle_reviews(demonstration=label.demonstration)
    return label


def whole_ranking(groups: Sequence[Sequence[int]], shown_ids: Sequence[int]) -> list[list[int]]:
    """The groups, best first. Raises BadInput unless they name each reply shown exactly once."""
    named = [response for group in groups for response in group]
    missing = len(set(shown_ids) - set(named))
    if missing:
        raise BadInput(f"{missing} of the {len(shown_ids)} replies {'has' if missing == 1 else 'have'} no rank yet.")
    if len(named) != len(set(named)) or set(named) != set(shown_ids):
        raise BadInput("A ranking names each of the replies shown exactly once, and no other.")
    return [list(group) for group in groups if group]


def valid_strength(strength: float | None) -> float | None:
    if strength is not None and not (math.isfinite(strength) and 0 <= strength <= STRONGEST):
        raise BadInput("How much better the best reply is goes from 0 to 3.")
    return strength


def valid_ratings(ratings: dict[int, int], shown_ids: Sequence[int]) -> dict[str, int]:
    if not ratings.keys() <= set(shown_ids) or any(value not in RATINGS for value in ratings.values()):
        raise BadInput("Ratings are whole numbers from 1 to 7, for the replies shown.")
    return {str(response): value for response, value in ratings.items()}


def valid_flags(flags: dict[int, list[str]], shown_ids: Sequence[int]) -> dict[str, list[str]]:
    if not flags.keys() <= set(shown_ids) or any(flag not in Flag.values for fs in flags.values() for flag in fs):
        raise BadInput(f"Flags are {', '.join(Flag.values)}, for the replies shown.")
    return {str(response): sorted(set(fs)) for response, fs in flags.items() if fs}


def _begin(lease: Lease, model: type[L], token: UUID, kind: Task.Kind, check: Check | None) -> tuple[Lease, L | None]:
    """The person's newest lease on the task, locked, and the label this token was already sent for."""
    task = lock_task(lease.task)
    if is_erased(task):
        raise Conflict("The person who wrote this has deleted it, so no answer is needed anymore. Take the next task.")
    sent = model._default_manager.filter(author_id=lease.person_id, token=token).first()
    if sent is not None and sent.task_id != task.pk:
        raise Conflict("This submission's token was used for another task. Reload the page and send it again.")
    if task.kind != kind:
        raise BadInput(f"This task asks for something else: {task.get_kind_display().lower()}.")
    leases = Lease.objects.filter(task=task, person_id=lease.person_id).select_related("guidelines")
    newest = leases.select_for_update(of=("self",)).order_by("-id")[0]
    newest.task, newest.person, task.prompt.project = task, lease.person, task.project
    if check is not None:
        check(newest)
    if sent is None:
        check_open(newest)
    return newest, sent


def check_open(lease: Lease) -> None:
    """Raises Conflict if the task was answered, or where the project was archived when it was not under way."""
    if lease.outcome == Lease.Outcome.SUBMITTED:
        raise AlreadyAnswered
    if lease.outcome == Lease.Outcome.HELD:
        return
    archived = archived_at(lease.task.project)
    if archived is not None and (lease.ended_at is None or lease.ended_at < archived):
        raise Conflict(
            f"{lease.task.project.name} is archived and takes no more labels. What you wrote is kept as a draft."
        )


def sent_again(label: L, **content: Any) -> L:
    """The label that this token was sent for. Raises Conflict if it is sent again with something else: the label
    stays as it is, and the person must not hear that what they changed was saved."""
    if isinstance(label, Demonstration):
        saved: dict[str, Any] = {"text": label.response.text}
    elif isinstance(label, Review):
        corrected = label.corrected.response.text if label.corrected else content["text"]
        saved = {"verdict": label.verdict, "comment": label.comment, "text": corrected}
    else:
        saved = {name: getattr(label, name) for name in content}
    if saved != content:
        raise Conflict(
            "Your answer was saved as you first sent it; what you changed afterwards is not in it. "
            "To change your answer, take it back from your history.",
            code="sent_before",
        )
    return label


def _what_every_label_carries(lease: Lease, token: UUID, active_seconds: float, now: datetime) -> dict[str, Any]:
    if not math.isfinite(active_seconds) or active_seconds < 0:
        raise BadInput("The time spent must be a number of seconds, not below 0.")
    return {
        "task": lease.task,
        "lease": lease,
        "prompt": lease.task.prompt,
        "author": lease.person,
        "token": token,
        "guidelines": lease.guidelines or current_guidelines(lease.task.project),
        "active_seconds": active_seconds,
        "created_at": now,
    }


def _finish(lease: Lease, now: datetime) -> None:
    """End the lease as submitted, on its seat, on a free one, or in reserve; the draft has done its work."""
    lease.seat = lease.seat or free_seat(lease.task)
    lease.outcome, lease.ended_at = Lease.Outcome.SUBMITTED, now
    lease.save(update_fields=["seat", "outcome", "ended_at"])
    Draft.objects.filter(task_id=lease.task_id, person_id=lease.person_id).delete()
    settle_state(lease.task)


@transaction.atomic
def undo(*, label: AnyLabel, by: User, now: datetime | None = None) -> Lease:
    """The author takes back one of their last ten labels in the project; it returns as a draft, on the seat it had."""
    now = now or timezone.now()
    project = label.prompt.project
    if label.author_id != by.pk:
        raise NotAllowed("Only the person who gave a label can take it back.")
    if label.task is None or label.lease_id is None:
        raise Conflict("This label did not come from a task, so there is nothing to go back to.")
    if label not in recent_labels(by, project, limit=UNDO_DEPTH):
        raise Conflict(f"Only the last {UNDO_DEPTH} labels can be taken back; ask a manager to withdraw an older one.")
    task = lock_task(label.task)
    if task.state not in (Task.State.OPEN, Task.State.FULL):
        raise Conflict("This task is closed, so its labels stay as they are.")
    if archived_at(project) is not None:
        raise Conflict(f"{project.name} is archived, so its labels stay as they are.")
    _retract(label, now)
    old = Lease.objects.get(pk=label.lease_id)
    seat = old.seat
    Lease.objects.filter(pk=old.pk).update(seat=None, outcome=Lease.Outcome.RETURNED)
    seat = seat or free_seat(task)
    lease = Lease.objects.create(
        task=task,
        person=by,
        until=lease_end(project, now),
        outcome=Lease.Outcome.HELD if seat else Lease.Outcome.LAPSED,
        seat=seat,
        order_shown=old.order_shown,
        guidelines=old.guidelines,
        created_at=now,
    )
    Draft.objects.update_or_create(
        task=task,
        person=by,
        defaults={
            "content": draft_of(label),
            "revision": uuid4(),
            "writer": None,
            "active_seconds": label.active_seconds,
            "updated_at": now,
        },
    )
    settle_state(task)
    return lease


@transaction.atomic
def withdraw_label(*, label: AnyLabel | Judgment, now: datetime | None = None) -> None:
    """Take a label out of the counts and out of future training; its seat opens again, to someone else."""
    task = lock_task(label.task) if label.task is not None else None
    _retract(label, now or timezone.now())
    if task is not None and label.lease is not None:
        Lease.objects.filter(pk=label.lease.pk).update(seat=None)
        fill_seats(task)


def _retract(label: AnyLabel | Judgment, now: datetime) -> None:
    """Mark the label as taken back, and undo what followed from it."""
    label.refresh_from_db(fields=["retracted_at"])
    if label.retracted_at is not None:
        raise Conflict("This label was already taken back.")
    if isinstance(label, Demonstration):
        drop_reviews(demonstration=label, now=now)
    label.retracted_at = now
    label.save(update_fields=["retracted_at"])
    if isinstance(label, Review):
        drop_correction(review=label, now=now)


def draft_of(label: AnyLabel) -> dict[str, Any]:
    """The label as the fields of the form it was made with."""
    if isinstance(label, Demonstration):
        return {"text": label.response.text}
    if isinstance(label, Review):
        text = label.corrected.response.text if label.corrected else ""
        return {"verdict": label.verdict, "comment": label.comment, "text": text}
    ranks = {f"rank_{r}": rank for rank, group in enumerate(label.groups, 1) for r in group}
    ratings = {f"rating_{r}": value for r, value in label.ratings.items()}
    flags = {f"flags_{r}": values for r, values in label.flags.items()}
    strength = "" if label.strength is None else f"{label.strength:g}"
    return {**ranks, **ratings, **flags, "strength": strength, "reason": label.reason}
