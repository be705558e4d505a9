"""Exports: models as files that people take away."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.runs.exports import EXPORTS, expires_at, export_bytes, exports_of, remove_export
from webapp.runs.models import Run
from webapp.runs.outputs import archive_download

PAGE = 25


@require_safe
@requires("models.view")
def export_list(request: HttpRequest, project: Project) -> HttpResponse:
    page = Paginator(exports_of(project), PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "page": page,
        "rows": [(run, export_bytes(run), expires_at(run)) for run in page],
        "total": sum(export_bytes(run) for run in exports_of(project)),
        "days": settings.EXPORT_DAYS,
    }
    return render(request, "runs/exports.html", context)


@require_safe
@requires("runs.view", EXPORTS)
def export_archive(request: Request, run: Run) -> HttpResponseBase:
    """All files of an export, as one."""
    return archive_download(request, run)


@require_POST
@requires("runs.manage", EXPORTS)
def export_remove(request: Request, run: Run) -> HttpResponse:
    remove_export(run=run, by=request.user)
    messages.success(request, f"The files of {run.name} are deleted.")
    return redirect("export_list", run.project.slug)
