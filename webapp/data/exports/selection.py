"""Which rows of a project to take out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final, TypeVar

from django.db.models import Q, QuerySet

from annotations.models import Demonstration, Judgment, Label, Prompt, Ranking
from annotations.selectors import TAKEN
from webapp.accounts.models import Project
from webapp.datasets.models import Document
from webapp.errors import BadInput
from webapp.params import read_choice, read_int, read_text

STATES: Final = {"live": "in use", "all": "all, withdrawn too"}
L = TypeVar("L", bound=Label)


@dataclass(frozen=True)
class Selection:
    """`state`: "live" takes what training would take, "all" takes the rest too and marks it. `author`: a user's id."""

    split: str = ""
    state: str = "live"
    author: int | None = None
    since: datetime | None = None


def selection_of(query: Mapping[str, Any]) -> Selection:
    """The filters of an address: split, state, author, since. Raises BadInput that names what does not fit."""
    return Selection(
        split=read_choice(query, "split", Prompt.Split.values),
        state=read_choice(query, "state", STATES, "live"),
        author=read_int(query, "author"),
        since=read_since(query),
    )


def read_since(query: Mapping[str, Any]) -> datetime | None:
    text = read_text(query, "since")
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        raise BadInput("since: give a date such as 2026-11-26.", field="since") from None


def selected_prompts(project: Project, selection: Selection) -> QuerySet[Prompt]:
    rows = Prompt.objects.filter(project=project)
    if selection.state == "live":
        rows = rows.filter(withdrawn_at=None)
    if selection.split:
        rows = rows.filter(split=selection.split)
    if selection.author is not None:
        rows = rows.filter(created_by=selection.author)
    return rows.filter(created_at__gte=selection.since) if selection.since else rows


def selected_demonstrations(project: Project, selection: Selection) -> QuerySet[Demonstration]:
    rows = Demonstration.objects.select_related("response")
    if selection.state == "live":
        rows = rows.filter(state=Demonstration.State.ACCEPTED)
    return labels(rows, project, selection)


def selected_rankings(project: Project, selection: Selection) -> QuerySet[Ranking]:
    return labels(Ranking.objects.all(), project, selection)


def selected_judgments(project: Project, selection: Selection) -> QuerySet[Judgment]:
    return labels(Judgment.objects.select_related("response"), project, selection)


def labels(rows: QuerySet[L], project: Project, selection: Selection) -> QuerySet[L]:
    chosen = Q(prompt__project=project)
    if selection.state == "live":
        chosen &= TAKEN & Q(prompt__withdrawn_at=None)
    if selection.split:
        chosen &= Q(prompt__split=selection.split)
    if selection.author is not None:
        chosen &= Q(author=selection.author)
    if selection.since:
        chosen &= Q(created_at__gte=selection.since)
    return rows.filter(chosen).select_related("prompt", "author", "guidelines", "lease", "task")


def selected_documents(project: Project, selection: Selection) -> QuerySet[Document]:
    """Documents have no state, and what is held out of them is decided after copies are found."""
    rows = Document.objects.filter(corpus__project=project).select_related("corpus")
    return rows.filter(created_at__gte=selection.since) if selection.since else rows
