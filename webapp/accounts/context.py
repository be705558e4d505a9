"""What every page knows: the project the person is in, and what they may do there."""

from __future__ import annotations

import re
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest

from webapp.accounts.access import ROLES, last_project
from webapp.accounts.adapter import pending_invitation
from webapp.accounts.models import Role, User
from webapp.accounts.selectors import has_superuser, projects_of

SECTIONS: Final = (
    ("label", re.compile(r"/label/")),
    ("chat", re.compile(r"/chat/")),
    ("data", re.compile(r"/projects/[^/]+/data/|/snapshots/")),
    ("runs", re.compile(r"/projects/[^/]+/runs/|/runs/")),
    (
        "models",
        re.compile(
            r"/projects/[^/]+/(models|deployments|judges|comparisons|withdrawn-data)/"
            r"|/(models|judges|judge-jobs|comparisons)/"
        ),
    ),
    ("project", re.compile(r"/projects/(?!new/)[^/]+/")),
)


def section_of(path: str) -> str:
    """Which part of the main navigation a page belongs to; empty for a page outside it."""
    return next((name for name, pattern in SECTIONS if pattern.match(path)), "")


def installation(_: HttpRequest) -> dict[str, Any]:
    """`sends_mail`: whether this installation can send email."""
    return {"sends_mail": settings.SENDS_MAIL}


def current_project(request: HttpRequest) -> dict[str, Any]:
    """`current_project` (the last visited, else the first), `my_projects`, `my_role`, `may` ("runs_view" → bool)."""
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        return {
            "invitation": lambda: pending_invitation(request),
            "open_to_sign_up": lambda: not has_superuser() or pending_invitation(request) is not None,
        }
    projects = list(projects_of(user))
    project = last_project(request, projects)
    role = Role(project.role) if project else None  # type: ignore[attr-defined]  # annotated
    return {
        "current_project": project,
        "my_projects": projects,
        "my_role": role,
        "section": section_of(request.path),
        "may": {name.replace(".", "_"): role in roles for name, roles in ROLES.items()},
    }
