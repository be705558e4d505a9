"""/label/history/: a person's own labels and skips, to look at and to take back."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotations.selectors import recent_labels, skips, undoable
from annotations.services.labels import UNDO_DEPTH
from annotations.workbench import history_rows, labeling_projects
from webapp.accounts.access import last_project, signed_in
from webapp.accounts.requests import Request
from webapp.errors import BadInput

PAGE_ROWS: Final = 30


@signed_in
@require_GET
def label_history(request: Request) -> HttpResponse:
    """The person's own labels and skipped tasks in the project, newest first."""
    project = last_project(request, labeling_projects(request.user))
    if project is None:
        return render(request, "annotations/no_project.html")
    before = time_asked_for(request.GET.get("before", ""))
    labels = recent_labels(request.user, project, before=before, limit=PAGE_ROWS)
    rows = history_rows(labels, skips(request.user, project, before=before, limit=PAGE_ROWS))[:PAGE_ROWS]
    newest = recent_labels(request.user, project, limit=UNDO_DEPTH) if before else labels[:UNDO_DEPTH]
    context = {
        "project": project,
        "rows": rows,
        "undoable": undoable(newest),
        "more": rows[-1].at.isoformat() if len(rows) == PAGE_ROWS else "",
        "before": before,
    }
    return render(request, "annotations/history.html", context)


def time_asked_for(text: str) -> datetime | None:
    """The end of the page before, or None for the first page. Raises BadInput unless it is a time with its zone."""
    if not text:
        return None
    try:
        before = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput("The page asked for is not a time. Start from your newest labels.") from None
    if before.tzinfo is None:
        raise BadInput("The page asked for is not a time with its zone. Start from your newest labels.")
    return before
