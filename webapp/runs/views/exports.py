"""Exports: models as files that people take away."""

from __future__ import annotations

from django.http import HttpResponseBase
from django.views.decorators.http import require_safe

from webapp.accounts.access import requires
from webapp.accounts.requests import Request
from webapp.runs.models import Run
from webapp.runs.outputs import archive_download

EXPORTS = Run.objects.filter(stage="export").select_related("project", "base")


@require_safe
@requires("runs.view", EXPORTS)
def export_archive(request: Request, run: Run) -> HttpResponseBase:
    """All files of an export, as one."""
    return archive_download(request, run)
