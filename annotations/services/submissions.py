"""A page's submission: the label, with regard to what other pages of the same person did to the task meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from annotations.models import Draft, Lease, Task
from annotations.selectors import KINDS, AnyLabel
from annotations.services.drafts import Content, PageState, check_draft, save_draft
from annotations.services.labels import submit_demonstration, submit_ranking, submit_review, undo
from annotations.services.seats import lock_task

SUBMIT: Final[dict[str, Callable[..., AnyLabel]]] = {
    Task.Kind.WRITE: submit_demonstration,
    Task.Kind.RANK: submit_ranking,
    Task.Kind.REVIEW: submit_review,
}


@transaction.atomic
def submit(
    *, lease: Lease, arguments: dict[str, Any], content: Content, page: PageState, replaces: Sequence[UUID] = ()
) -> AnyLabel:
    """The label that the page sends. Raises DraftConflict if another page's draft would be dropped unseen.

    Args:
        arguments: of the kind's own service.
        content: the form's fields by name, as a draft keeps them.
        replaces: tokens of earlier submissions of this task whose answers the page never got. What arrived of them is
            taken back in favor of this one.
    """

    def check(newest: Lease) -> None:
        check_draft(lease=newest, content=content, page=page)

    if not replaces:
        return SUBMIT[lease.task.kind](lease=lease, check=check, **arguments)
    lock_task(lease.task)
    check(lease)  # before an answer is taken back, which makes a draft of it
    _take_back(lease, replaces, page)
    return SUBMIT[lease.task.kind](lease=lease, **arguments)


@transaction.atomic
def keep_draft(*, lease: Lease, content: Content, page: PageState, replaces: Sequence[UUID] = ()) -> Draft:
    """Save a page's draft. What arrived of the submissions that it `replaces` is taken back: the person went on with
    the answer before they could hear that it was saved."""
    lock_task(lease.task)
    _take_back(lease, replaces, page)
    return save_draft(lease=lease, content=content, page=page)


def _take_back(lease: Lease, tokens: Sequence[UUID], page: PageState) -> None:
    if not tokens:
        return
    labels = KINDS[lease.task.kind]._default_manager
    arrived = labels.filter(author_id=lease.person_id, task_id=lease.task_id, token__in=tokens, retracted_at=None)
    if label := arrived.first():
        undo(label=label, by=lease.person)
        Draft.objects.filter(task_id=lease.task_id, person_id=lease.person_id).update(writer=page.writer)
