"""Half-made labels: saved as they are typed, never one over another that the writer has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import transaction
from django.utils import timezone

from annotations.models import Draft, Lease
from annotations.services.seats import is_erased
from webapp.errors import Conflict
from webapp.text import clean_text

Content = dict[str, Any]


@dataclass(frozen=True)
class PageState:
    """What a page knows of the draft when it saves.

    Args:
        began_from: the draft's revision that the page was made with, or saved last; None: there was no draft.
        writer: the page itself; it may always save over its own saves. None: a program or a page without scripts.
        earlier_writers: what the page was called before, when it began to change an answer that is being sent.
        typed_at: milliseconds by the page's clock; of two saves of one page, the later stays whichever arrives last.
        active_seconds: spent on the task so far.
    """

    began_from: UUID | None = None
    writer: UUID | None = None
    earlier_writers: tuple[UUID, ...] = ()
    typed_at: int = 0
    active_seconds: float = 0.0


NO_PAGE: Final = PageState()


class DraftConflict(Conflict):
    """Another page or device saved this draft since; `draft` is what it saved."""

    code = "draft_conflict"

    def __init__(self, draft: Draft) -> None:
        super().__init__("This draft was changed in another window or on another device. Choose which text to keep.")
        self.draft = draft


class AlreadyAnswered(Conflict):
    code = "answered"

    def __init__(self) -> None:
        super().__init__("You have already answered this task. To change your answer, take it back from your history.")


@transaction.atomic
def save_draft(*, lease: Lease, content: Content, page: PageState, now: datetime | None = None) -> Draft:
    """Keep what was typed. Raises DraftConflict, and keeps what is there, where another page saved since.

    Args:
        content: the form's fields by name.
    """
    now = now or timezone.now()
    newest = _newest_lease_locked(lease)
    if newest.outcome == Lease.Outcome.SUBMITTED:
        raise AlreadyAnswered
    draft = Draft.objects.filter(task_id=lease.task_id, person_id=lease.person_id).first()
    content = cleaned_content(content)
    if draft is None:
        draft = Draft(task_id=lease.task_id, person_id=lease.person_id)
    elif is_older(draft, page) or (not _own(draft, page) and same_content(draft.content, content)):
        return draft
    else:
        _check_known(draft, content, page)
    draft.content, draft.revision, draft.updated_at = content, uuid4(), now
    draft.writer, draft.typed_at = page.writer, page.typed_at
    draft.active_seconds = max(draft.active_seconds, page.active_seconds)
    draft.save()
    if is_erased(lease.task):  # asked last: an insertion waits for an erasure that is under way
        raise Conflict("The person who wrote this has deleted it, so no answer is needed anymore. Take the next task.")
    return draft


def check_draft(*, lease: Lease, content: Content, page: PageState) -> None:
    """Before a submission, in its transaction and with the lease locked: raises DraftConflict if another page has saved
    something else as the draft since, which submitting would drop unseen."""
    draft = Draft.objects.filter(task_id=lease.task_id, person_id=lease.person_id).first()
    if draft is not None:
        _check_known(draft, cleaned_content(content), page)


def changed_elsewhere(*, lease: Lease, page: PageState) -> Draft | None:
    """The draft, where another page saved it since this one last knew it."""
    draft = Draft.objects.filter(task_id=lease.task_id, person_id=lease.person_id).first()
    is_known = draft is None or draft.revision == page.began_from or _own(draft, page)
    return None if is_known else draft


def is_older(draft: Draft, page: PageState) -> bool:
    """A save that this page sent before the one that is there already."""
    return _own(draft, page) and page.typed_at < draft.typed_at


def cleaned_content(content: Content) -> Content:
    return {clean_text(name): clean_text(value) if isinstance(value, str) else value for name, value in content.items()}


def same_content(before: Content, after: Content) -> bool:
    """Whether two drafts say the same; a field that is empty is as good as one that is not there."""
    return _filled_in(before) == _filled_in(after)


def _filled_in(content: Content) -> dict[str, Any]:
    fields = {name: sorted(value) if isinstance(value, list) else str(value) for name, value in content.items()}
    return {name: value for name, value in fields.items() if value and content[name] is not None}


def _own(draft: Draft, page: PageState) -> bool:
    return page.writer is not None and draft.writer in (page.writer, *page.earlier_writers)


def _check_known(draft: Draft, content: Content, page: PageState) -> None:
    is_known = draft.revision == page.began_from or _own(draft, page)
    if not is_known and _filled_in(draft.content) and not same_content(draft.content, content):
        raise DraftConflict(draft)


def _newest_lease_locked(lease: Lease) -> Lease:
    """The person's newest lease on the task. Its lock keeps two saves, or a save and a submission, apart."""
    rows = Lease.objects.filter(task_id=lease.task_id, person_id=lease.person_id).order_by("-id")
    return rows.select_for_update()[0]
