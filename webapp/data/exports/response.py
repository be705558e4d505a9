"""An export as an answer to a request."""

from __future__ import annotations

from django.http import HttpRequest, StreamingHttpResponse

from webapp.accounts.models import Project
from webapp.data.exports.formats import OWN, export_lines, format_of
from webapp.data.exports.selection import selection_of
from webapp.downloads import download


def exported(request: HttpRequest, project: Project, kind: str) -> StreamingHttpResponse:
    """The rows of a kind in the format that the parameter `as` names, narrowed by split, state, author and since."""
    name = request.GET.get("as", "") or OWN
    chosen = format_of(kind, name)
    selection = selection_of(request.GET)
    name_parts = [
        project.slug,
        kind,
        *([] if name in (OWN, "csv") else [name]),
        *([selection.split] if selection.split else []),
    ]
    return download(request, export_lines(chosen, project, selection), f"{'-'.join(name_parts)}.{chosen.suffix}")
