"""/label/: the next task at once, and a way back to the last ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotations.forms import FORMS
from annotations.models import Lease, Task
from annotations.selectors import KINDS, AnyLabel, history
from annotations.services import labels, leases
from annotations.workbench import history_rows, kinds, labelling_projects, project_of, workbench
from webapp.accounts.access import allow, declares, project_for, signed_in
from webapp.accounts.models import Project, User
from webapp.errors import BadInput, NotFound, TutelageError, wants_json
from webapp.text import render_markdown

SUBMIT: dict[str, Callable[..., AnyLabel]] = {
    Task.Kind.WRITE: labels.submit_demonstration,
    Task.Kind.RANK: labels.submit_ranking,
    Task.Kind.REVIEW: labels.submit_review,
}
PAGE = 30


def person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 (the decorators let nobody else through)
    return request.user


@signed_in
@require_GET
def label(request: HttpRequest) -> HttpResponse:
    """The next task of the project the person is in, or of ?project=; ?kind= keeps to one kind from now on."""
    if slug := request.GET.get("project"):
        project: Project | None = project_for(request.user, slug, "label")
        request.session["project"] = slug
    else:
        project = project_of(request, labelling_projects(person(request)))
    if project is None:
        return render(request, "annotations/no_project.html")
    if kind := request.GET.get("kind"):
        request.session["label_kind"] = kind if kind in Task.Kind.values else "any"
        return redirect("label")
    return next_task(request, project)


def next_task(request: HttpRequest, project: Project, **extra: Any) -> HttpResponse:
    kind = request.session.get("label_kind", "any")
    wanted = [Task.Kind(kind)] if kind in Task.Kind.values else None
    lease = leases.lease_next(person=person(request), project=project, kinds=wanted)
    return show(request, project, lease, **extra)


def show(request: HttpRequest, project: Project, lease: Lease | None, **extra: Any) -> HttpResponse:
    """The whole page, or only the part that changes when htmx asks."""
    context = workbench(request, project, lease) | extra
    if getattr(request, "htmx", False):
        response = render(request, "annotations/workbench.html", context)
    else:
        response = render(request, "annotations/label.html", context | kinds(request, project))
    response["Cache-Control"] = "no-store"  # the way back must ask the server what is in hand
    return response


@signed_in
@require_GET
def label_kinds(request: HttpRequest) -> HttpResponse:
    """The choice of kinds again, with fresh counts."""
    project = project_of(request, labelling_projects(person(request)))
    return render(request, "annotations/kinds.html", kinds(request, project) if project else {})


def my_lease(request: HttpRequest, lease_id: int) -> Lease:
    """The person's own lease, in a project where they still may label. Raises NotFound, NotAllowed."""
    try:
        lease = leases.lease_with_task(lease_id)
    except Lease.DoesNotExist:
        raise NotFound("There is no such task, or it is not in your hands.") from None
    allow(request.user, "label", lease.task.project)
    if lease.person_id != person(request).pk:
        raise NotFound("There is no such task, or it is not in your hands.")
    return lease


@declares("label")
@require_GET
def label_lease(request: HttpRequest, lease_id: int) -> HttpResponse:
    """One task again: after an undo, or to go on with an unfinished one."""
    lease = leases.renew_lease(lease=my_lease(request, lease_id))
    request.session["project"] = lease.task.project.slug
    if lease.outcome == Lease.Outcome.SUBMITTED:
        return redirect("label_history")
    return show(request, lease.task.project, lease)


@declares("label")
@require_POST
def label_submit(request: HttpRequest, lease_id: int) -> HttpResponse:
    lease = my_lease(request, lease_id)
    form = FORMS[lease.task.kind](request.POST, lease)
    try:
        made = SUBMIT[lease.task.kind](lease=lease, **form.arguments())
    except TutelageError as error:
        if getattr(request, "htmx", False) or wants_json(request):
            raise
        leases.save_draft(lease=lease, content=form.draft(), revision=time.time_ns() // 1_000_000)
        response = show(request, lease.task.project, lease, error=error)
        response.status_code = error.status
        return response
    if wants_json(request):
        return JsonResponse({"saved": True})
    return onwards(request, lease.task.project, saved={"kind": lease.task.kind, "id": made.pk})


def onwards(request: HttpRequest, project: Project, saved: dict[str, Any] | None = None) -> HttpResponse:
    """To the next task: by a redirect, or at once when htmx asks. `saved` is the label that can be undone there."""
    if not getattr(request, "htmx", False):
        request.session["label_saved"] = saved
        return redirect("label")
    response = next_task(request, project, saved=saved)
    response["HX-Push-Url"] = reverse("label")
    return response


@declares("label")
@require_POST
def label_skip(request: HttpRequest, lease_id: int) -> HttpResponse:
    lease = my_lease(request, lease_id)
    leases.skip(lease=lease, reason=request.POST.get("own_reason", "") or request.POST.get("reason", ""))
    return onwards(request, lease.task.project)


@declares("label")
@require_POST
def label_draft(request: HttpRequest, lease_id: int) -> HttpResponse:
    lease = my_lease(request, lease_id)
    try:
        revision = int(request.POST.get("revision", ""))
    except ValueError:
        raise BadInput("A draft says when it was typed: revision, in milliseconds since 1970.") from None
    form = FORMS[lease.task.kind](request.POST, lease)
    return JsonResponse({"saved": leases.save_draft(lease=lease, content=form.draft(), revision=revision)})


@declares("label")
@require_POST
def label_renew(request: HttpRequest, lease_id: int) -> HttpResponse:
    lease = leases.renew_lease(lease=my_lease(request, lease_id))
    return JsonResponse({"outcome": lease.outcome, "until": lease.until.isoformat()})


@declares("label")
@require_POST
def label_undo(request: HttpRequest, kind: str, label_id: int) -> HttpResponse:
    made: AnyLabel | None = None
    if model := KINDS.get(kind):
        made = model._default_manager.filter(pk=label_id, author=person(request)).first()
    if made is None:
        raise NotFound("There is no such label of yours.")
    allow(request.user, "label", made.prompt.project)
    lease = leases.lease_with_task(labels.undo(label=made, by=person(request)).pk)
    if not getattr(request, "htmx", False):
        return redirect("label_lease", lease.pk)
    response = show(request, lease.task.project, lease)
    response["HX-Push-Url"] = reverse("label_lease", args=[lease.pk])
    return response


@signed_in
@require_POST
def label_preview(request: HttpRequest) -> HttpResponse:
    """Markdown as it will look."""
    return HttpResponse(render_markdown(request.POST.get("text", "")))


@signed_in
@require_GET
def label_history(request: HttpRequest) -> HttpResponse:
    """The person's own labels in the project, newest first."""
    project = project_of(request, labelling_projects(person(request)))
    if project is None:
        return render(request, "annotations/no_project.html")
    before = None
    if asked := request.GET.get("before"):
        try:
            before = datetime.fromisoformat(asked)
        except ValueError:
            raise BadInput("The page asked for is not a time. Start from your newest labels.") from None
        if before.tzinfo is None:
            raise BadInput("The page asked for is not a time with its zone. Start from your newest labels.")
    mine = history(person(request), project, before=before, limit=PAGE)
    newest = history(person(request), project, limit=labels.UNDO_DEPTH) if before else mine[: labels.UNDO_DEPTH]
    context = {
        "project": project,
        "rows": history_rows(mine),
        "undoable": {made.lease_id for made in newest},
        "more": mine[-1].created_at.isoformat() if len(mine) == PAGE else "",
        "before": before,
    }
    return render(request, "annotations/history.html", context)
