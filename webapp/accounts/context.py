"""What every page knows: the project the person is in, and what they may do there."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from webapp.accounts.access import ROLES, role_of
from webapp.accounts.models import Project, User
from webapp.accounts.selectors import projects_of


def current_project(request: HttpRequest) -> dict[str, Any]:
    """`project` (the last one visited, else the first), `may` (permission, dots as underscores, → bool), `my_projects`."""
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        return {}
    mine = list(projects_of(user))
    last = request.session.get("project")
    project: Project | None = next((p for p in mine if p.slug == last), mine[0] if mine else None)
    role = role_of(user, project) if project else None
    return {
        "current_project": project,
        "my_projects": mine,
        "my_role": role,
        "may": {name.replace(".", "_"): role in roles for name, roles in ROLES.items()},
    }
