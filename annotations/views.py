"""/label/: the next task at once, and a way back to the last ones."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotations.forms import FORMS, PageForm, Submission
from annotations.models import Draft, Lease, Task
from annotations.selectors import KINDS, AnyLabel
from annotations.services import drafts, labels, leases
from annotations.services.submissions import keep_draft, submit
from annotations.workbench import kinds, labeling_projects, undo_of_label, undo_of_skip, workbench
from webapp.accounts.access import last_project, project_for, requires, signed_in
from webapp.accounts.models import Project, User
from webapp.accounts.requests import Request
from webapp.accounts.selectors import current_guidelines
from webapp.errors import NotFound, TutelageError, wants_json
from webapp.partials import render_page_or_fragment, wants_fragment
from webapp.text import render_markdown


@signed_in
@require_GET
def label(request: Request) -> HttpResponse:
    """The next task of the project the person is in, or of ?project=; ?kind= keeps to one kind from now on."""
    if slug := request.GET.get("project"):
        project: Project | None = project_for(request.user, slug, "label")
        request.session["project"] = slug
    else:
        project = last_project(request, labeling_projects(request.user))
    if project is None:
        return render(request, "annotations/no_project.html")
    if kind := request.GET.get("kind"):
        request.session["label_kind"] = kind if kind in Task.Kind.values else "any"
        return redirect("label")
    return next_task(request, project)


def next_task(request: Request, project: Project, **extra: Any) -> HttpResponse:
    kind = request.session.get("label_kind", "any")
    kinds = [Task.Kind(kind)] if kind in Task.Kind.values else None
    lease = leases.lease_next(person=request.user, project=project, kinds=kinds)
    return labeling_page(request, project, lease, **extra)


def labeling_page(request: Request, project: Project, lease: Lease | None, **extra: Any) -> HttpResponse:
    """The whole page, or only the part that changes when htmx asks."""
    context = workbench(request, project, lease) | kinds(request, project, lease) | extra
    response = render_page_or_fragment(request, "annotations/label.html", "annotations/workbench.html", context)
    response["Cache-Control"] = "no-store"  # the way back must ask the server what is in hand
    return response


@signed_in
@require_GET
def label_kinds(request: Request) -> HttpResponse:
    """The choice of kinds again, with fresh counts."""
    project = last_project(request, labeling_projects(request.user))
    return render(request, "annotations/kinds.html", kinds(request, project) if project else {})


def lease_of(user: User, lease_id: int) -> Lease:
    """The person's own lease. Raises NotFound."""
    try:
        lease = leases.lease_with_task(lease_id)
    except Lease.DoesNotExist:
        raise NotFound("There is no such task, or it is not in your hands.") from None
    if lease.person_id != user.pk:
        raise NotFound("There is no such task, or it is not in your hands.")
    return lease


def label_of(user: User, kind: str, label_id: int) -> AnyLabel:
    """The person's own label. Raises NotFound."""
    model = KINDS.get(kind)
    label = model._default_manager.filter(pk=label_id, author=user).first() if model else None
    if label is None:
        raise NotFound("There is no such label of yours.")
    return label


@requires("label", lease_of)
@require_GET
def label_lease(request: Request, lease: Lease) -> HttpResponse:
    """One task again: after an undo, or to go on with an unfinished one."""
    lease = leases.renew_lease(lease=lease)
    if lease.outcome in (Lease.Outcome.SUBMITTED, Lease.Outcome.SKIPPED):
        return redirect("label_history")  # from where both can be taken up again
    return labeling_page(request, lease.task.project, lease)


@requires("label", lease_of)
@require_POST
def label_submit(request: Request, lease: Lease) -> HttpResponse:
    form, page = sent_by_page(request, lease)
    try:
        label = submit(
            lease=lease,
            arguments=form.arguments(),
            content=form.draft(),
            page=page.state(),
            replaces=page.cleaned_data["replaces"],
        )
    except TutelageError as error:
        if wants_fragment(request) or wants_json(request):
            raise
        return refused_without_scripts(request, lease, error)
    if wants_json(request):
        return JsonResponse({"saved": True})
    return onwards(request, lease.task.project, undo=undo_of_label(lease.task.kind, label.pk))


def sent_by_page(request: Request, lease: Lease) -> tuple[Submission, PageForm]:
    return FORMS[lease.task.kind](request.POST, lease), PageForm(request.POST)


def refused_without_scripts(request: Request, lease: Lease, error: TutelageError) -> HttpResponse:
    """The page again with what was typed, which is also kept as a draft unless another page saved a newer one."""
    form, page = sent_by_page(request, lease)
    other_draft = None
    try:
        drafts.save_draft(lease=lease, content=form.draft(), page=page.state() if page.is_valid() else drafts.NO_PAGE)
    except drafts.DraftConflict as conflict:
        other_draft = conflict.draft
    except drafts.AlreadyAnswered:
        pass  # the page says so: it is the error
    extra = {"error": error, "content": form.draft(), "other_draft": other_draft}
    response = labeling_page(request, lease.task.project, lease, **extra)
    response.status_code = error.status
    return response


def onwards(request: Request, project: Project, undo: dict[str, str]) -> HttpResponse:
    """To the next task: by a redirect, or at once when htmx asks. `undo` is what can be undone there."""
    if not wants_fragment(request):
        request.session["label_undo"] = undo
        return redirect("label")
    response = next_task(request, project, undo=undo)
    response["HX-Replace-Url"] = reverse("label")  # no entry of its own: the way back leaves the page
    return response


@requires("label", lease_of)
@require_POST
def label_skip(request: Request, lease: Lease) -> HttpResponse:
    """Skip the task; what the page sends of the form along with it is kept as a draft."""
    form, page = sent_by_page(request, lease)
    content = form.draft()
    if any(content.values()):
        keep_draft(lease=lease, content=content, page=page.state(), replaces=page.cleaned_data["replaces"])
    lease = leases.newest_lease(lease)
    leases.skip(lease=lease, reason=request.POST.get("own_reason", "") or request.POST.get("skip_reason", ""))
    return onwards(request, lease.task.project, undo=undo_of_skip(lease))


@requires("label", lease_of)
@require_POST
def label_unskip(request: Request, lease: Lease) -> HttpResponse:
    lease = leases.unskip(lease=lease)
    return show_again(request, leases.lease_with_task(lease.pk))


@requires("label", lease_of)
@require_POST
def label_draft(request: Request, lease: Lease) -> HttpResponse:
    form, page = sent_by_page(request, lease)
    try:
        state = page.state()
        draft = keep_draft(lease=lease, content=form.draft(), page=state, replaces=page.cleaned_data["replaces"])
    except drafts.DraftConflict as error:
        body = {"code": error.error_code, "message": error.message, "draft": draft_json(error.draft)}
        return JsonResponse(body, status=error.status)
    return JsonResponse({"saved": True, "revision": draft.revision})


def draft_json(draft: Draft) -> dict[str, Any]:
    return {"revision": draft.revision, "content": draft.content, "updated_at": draft.updated_at.isoformat()}


@requires("label", lease_of)
@require_POST
def label_renew(request: Request, lease: Lease) -> HttpResponse:
    """How the hold stands; the draft, where another page saved it since this one last knew; the guidelines' version."""
    lease = leases.renew_lease(lease=leases.newest_lease(lease))
    changed = drafts.changed_elsewhere(lease=lease, page=sent_by_page(request, lease)[1].state())
    guidelines = current_guidelines(lease.task.project)
    answer = {
        "outcome": lease.outcome,
        "until": lease.until.isoformat(),
        "draft": draft_json(changed) if changed else None,
        "guidelines": guidelines.version if guidelines else None,
    }
    return JsonResponse(answer)


@requires("label", lease_of)
@require_POST
def label_guidelines(request: Request, lease: Lease) -> HttpResponse:
    """The guidelines as they are now, shown with the task from here on."""
    guidelines = current_guidelines(lease.task.project)
    leases.show_guidelines(lease=lease, guidelines=guidelines)
    return render(request, "annotations/guidelines.html", {"guidelines": guidelines})


@requires("label", label_of)
@require_POST
def label_undo(request: Request, label: AnyLabel) -> HttpResponse:
    return show_again(request, leases.lease_with_task(labels.undo(label=label, by=request.user).pk))


def show_again(request: Request, lease: Lease) -> HttpResponse:
    """A task that came back into the person's hands."""
    if not wants_fragment(request):
        return redirect("label_lease", lease.pk)
    response = labeling_page(request, lease.task.project, lease)
    response["HX-Replace-Url"] = reverse("label_lease", args=[lease.pk])
    return response


@signed_in
@require_POST
def label_preview(request: Request) -> HttpResponse:
    """Markdown as it will look."""
    return HttpResponse(render_markdown(request.POST.get("text", "")))
