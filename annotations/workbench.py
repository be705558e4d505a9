"""What the labelling page shows: a task with all that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from django.http import HttpRequest

from annotations.models import Flag, Lease, Ranking, Response, Task
from annotations.selectors import AnyLabel, draft_for, labels_wanted, replies_shown, today_count, unfinished
from webapp.accounts.access import ROLES
from webapp.accounts.models import Membership, Project, User
from webapp.accounts.selectors import current_guidelines, projects_of

LETTERS: Final = "ABCDEFGHI"
STRENGTHS: Final = (("0", "Hardly"), ("1", "A little"), ("2", "Clearly"), ("3", "By far"))
SKIP_REASONS: Final = (
    "The prompt is unclear",
    "I do not know enough about this",
    "I would rather not read this",
    "Something is broken",
)
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
    """A label, and for a ranking the texts of its groups, best first."""

    label: AnyLabel
    groups: list[list[str]]


def history_rows(labels: list[AnyLabel]) -> list[HistoryRow]:
    ranked = {pk for label in labels if isinstance(label, Ranking) for pk in label.order_shown}
    texts = dict(Response.objects.filter(pk__in=ranked).values_list("pk", "text"))
    return [
        HistoryRow(made, [[texts[pk] for pk in group] for group in made.groups] if isinstance(made, Ranking) else [])
        for made in labels
    ]


def labelling_projects(user: User) -> list[Project]:
    """The projects in which this person may label, by name."""
    projects = projects_of(user)
    if not user.is_superuser:
        labelling = Membership.objects.filter(user=user, role__in=ROLES["label"])
        projects = projects.filter(memberships__in=labelling)
    return list(projects)


def project_of(request: HttpRequest, projects: list[Project]) -> Project | None:
    """The one the person was in last, else the first."""
    last = request.session.get("project")
    return next((project for project in projects if project.slug == last), projects[0] if projects else None)


def workbench(request: HttpRequest, project: Project, lease: Lease | None) -> dict[str, Any]:
    """The context of the labelling page; `lease` None shows that there is nothing to do."""
    assert isinstance(request.user, User)  # noqa: S101 (views ask for a signed-in person first)
    chosen = request.session.get("label_kind", "any")
    context: dict[str, Any] = {
        "project": project,
        "lease": lease,
        "chosen": chosen,
        "today": today_count(request.user, project),
        "unfinished": unfinished(request.user, project, than=lease)[:10],
        "saved": request.session.pop("label_saved", None),
        "guidelines": current_guidelines(project),
    }
    if lease is None:
        context["projects"] = [p for p in labelling_projects(request.user) if p != project]
        return context
    draft = draft_for(lease)
    content = draft.content if draft else {}
    context |= {
        "task": lease.task,
        "prompt": lease.task.prompt,
        "content": content,
        "revision": draft.revision if draft else 0,
        "token": uuid4(),
        "renew_seconds": min(60, lease.task.project.lease_minutes * 20),
        "skip_reasons": SKIP_REASONS,
    }
    if lease.task.kind == Task.Kind.RANK:
        context |= {"strengths": STRENGTHS, "flag_choices": Flag.choices, "ratings": [str(n) for n in range(1, 8)]}
        context["replies"] = [_reply(n, r, content) for n, r in enumerate(replies_shown(lease))]
        context["places"] = [str(n) for n in range(1, len(lease.order_shown) + 1)]
    return context


def kinds(request: HttpRequest, project: Project) -> dict[str, Any]:
    """The context of the choice of kinds, with how many labels of each are wanted. It counts every open task, so it
    comes with the page and every minute after that, not with every label."""
    chosen = request.session.get("label_kind", "any")
    return {"kinds": KINDS, "chosen": chosen, "wanted": labels_wanted(project)}


def _reply(number: int, response: Response, content: dict[str, Any]) -> Reply:
    return Reply(
        letter=LETTERS[number],
        response=response,
        rank=str(content.get(f"rank_{response.pk}", "")),
        rating=str(content.get(f"rating_{response.pk}", "")),
        flags=content.get(f"flags_{response.pk}", []),
    )
