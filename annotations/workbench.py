"""What the labeling page shows: a task with all that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from django.urls import reverse

from annotations.models import Draft, Flag, Lease, Ranking, Response, Task
from annotations.selectors import (
    ENDED,
    AnyLabel,
    draft_for,
    has_other_tasks,
    labels_open_to,
    replies_shown,
    saw_guidelines,
    today_count,
    unfinished,
)
from annotations.services.leases import archived_at, show_guidelines
from webapp.accounts.access import ROLES
from webapp.accounts.models import Guidelines, Membership, Project, User
from webapp.accounts.requests import Request
from webapp.accounts.selectors import current_guidelines, projects_of
from webapp.partials import wants_fragment

LETTERS: Final = "ABCDEFGHI"
STRENGTHS: Final = (("", "No answer"), ("0", "Hardly"), ("1", "A little"), ("2", "Clearly"), ("3", "By far"))
SKIP_REASONS: Final = (
    "The prompt is unclear",
    "I do not know enough about this",
    "I would rather not read this",
    "Something is broken",
)
MAX_UNFINISHED: Final = 10  # drafts that the page lists
DELETED_REPLY: Final = "This reply was deleted."
KINDS: Final = (("any", "Any"), (Task.Kind.WRITE, "Write"), (Task.Kind.RANK, "Rank"), (Task.Kind.REVIEW, "Review"))


@dataclass(frozen=True)
class Reply:
    """A reply to rank, as it is shown; the letter says nothing about who or what wrote it."""

    letter: str
    response: Response
    rank: str
    rating: str
    flags: list[str]


@dataclass(frozen=True)
class HistoryRow:
    """A label, with the texts of a ranking's groups, best first; or a skipped task."""

    at: datetime
    label: AnyLabel | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    skipped: Lease | None = None


def history_rows(labels: list[AnyLabel], skipped: list[Lease]) -> list[HistoryRow]:
    """Both by time, newest first."""
    ranked = {pk for label in labels if isinstance(label, Ranking) for pk in label.order_shown}
    texts = dict(Response.objects.filter(pk__in=ranked).values_list("pk", "text"))
    rows = [
        HistoryRow(label.created_at, label, _texts(label, texts) if isinstance(label, Ranking) else ())
        for label in labels
    ]
    rows += [HistoryRow(lease.ended_at, skipped=lease) for lease in skipped if lease.ended_at is not None]
    return sorted(rows, key=lambda row: row.at, reverse=True)


def _texts(ranking: Ranking, texts: dict[int, str]) -> tuple[tuple[str, ...], ...]:
    """A reply that was deleted for good is not there anymore."""
    return tuple(tuple(texts.get(pk, DELETED_REPLY) for pk in group) for group in ranking.groups)


def undo_of_label(kind: str, label_id: int) -> dict[str, str]:
    return {"text": "Saved.", "url": reverse("label_undo", args=[kind, label_id])}


def undo_of_skip(lease: Lease) -> dict[str, str]:
    return {"text": "Skipped. Your draft is kept.", "url": reverse("label_unskip", args=[lease.pk])}


def labeling_projects(user: User) -> list[Project]:
    """The projects in which this person may label, by name."""
    projects = projects_of(user)
    if not user.is_superuser:
        labeling = Membership.objects.filter(user=user, role__in=ROLES["label"])
        projects = projects.filter(memberships__in=labeling)
    return list(projects)


def workbench(request: Request, project: Project, lease: Lease | None) -> dict[str, Any]:
    """The context of the labeling page; `lease` None shows that there is nothing to do."""
    chosen = request.session.get("label_kind", "any")
    drafts = list(unfinished(request.user, project)[: MAX_UNFINISHED + 1])
    context: dict[str, Any] = {
        "project": project,
        "lease": lease,
        "chosen": chosen,
        "today": today_count(request.user, project),
        "unfinished": [draft for draft in drafts if lease is None or draft.task_id != lease.task_id][:MAX_UNFINISHED],
        "undo": request.session.pop("label_undo", None),
        "guidelines": current_guidelines(project),
        "archived": (lease.task.project.archived_at if lease else archived_at(project)) is not None,
    }
    if lease is None:
        context["projects"] = [p for p in labeling_projects(request.user) if p != project]
        return context
    draft = draft_among(drafts, lease)
    content = draft.content if draft else {}
    context["guidelines_news"] = guidelines_news(lease, context["guidelines"])
    show_guidelines(lease=lease, guidelines=context["guidelines"])
    context |= {
        "task": lease.task,
        "prompt": lease.task.prompt,
        "content": content,
        "revision": draft.revision if draft else "",
        "active_seconds": draft.active_seconds if draft else 0,
        "token": uuid4(),
        "renew_seconds": min(60, lease.task.project.lease_minutes * 20),
        "skip_reasons": SKIP_REASONS,
    }
    if lease.task.kind == Task.Kind.RANK:
        context |= {"strengths": STRENGTHS, "flag_choices": Flag.choices, "ratings": [str(n) for n in range(1, 8)]}
        context["replies"] = [_reply(n, r, content) for n, r in enumerate(replies_shown(lease))]
        context["places"] = [str(n) for n in range(1, len(context["replies"]) + 1)]
    return context


def draft_among(unfinished_drafts: list[Draft], lease: Lease) -> Draft | None:
    """The lease's draft. Looked up only if it may exist and not be among the newest drafts that can be answered."""
    own_draft = next((draft for draft in unfinished_drafts if draft.task_id == lease.task_id), None)
    is_complete = len(unfinished_drafts) <= MAX_UNFINISHED and lease.outcome == Lease.Outcome.HELD
    return own_draft or (None if is_complete and lease.task.state not in ENDED else draft_for(lease))


def guidelines_news(lease: Lease, guidelines: Guidelines | None) -> str:
    """What the page says of the guidelines: "changed" since the person last saw them, "first" when they see them for
    the first time, or nothing."""
    if guidelines is None or (lease.guidelines_id == guidelines.pk and saw_guidelines(lease, guidelines)):
        return ""
    reopened = lease.guidelines_id is not None and lease.guidelines_id != guidelines.pk
    return "changed" if reopened or has_other_tasks(lease) else "first"


def kinds(request: Request, project: Project, lease: Lease | None = None) -> dict[str, Any]:
    """The context of the choice of kinds, with how many labels of each this person can give now. It counts every open
    task, so it comes with whole pages and shortly after a label, not with the label's own answer, unless that says
    that nothing is left."""
    chosen = request.session.get("label_kind", "any")
    if wants_fragment(request) and lease is not None:
        return {}
    open_to_person = labels_open_to(request.user, project)
    open_to_person["any"] = sum(open_to_person.values())
    return {"kinds": KINDS, "chosen": chosen, "open_to_person": open_to_person, "oob": wants_fragment(request)}


def _reply(number: int, response: Response, content: dict[str, Any]) -> Reply:
    return Reply(
        letter=LETTERS[number],
        response=response,
        rank=str(content.get(f"rank_{response.pk}", "")),
        rating=str(content.get(f"rating_{response.pk}", "")),
        flags=content.get(f"flags_{response.pk}", []),
    )
