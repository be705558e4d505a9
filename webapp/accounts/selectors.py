"""Reads of people and projects."""

from __future__ import annotations

from django.db.models import QuerySet

from webapp.accounts.models import Guidelines, Project, User


def projects_of(user: User) -> QuerySet[Project]:
    """The person's projects that are not archived; every one for whoever runs the installation."""
    live = Project.objects.filter(archived_at=None)
    return live if user.is_superuser else live.filter(memberships__user=user)


def current_guidelines(project: Project) -> Guidelines | None:
    return project.guidelines.order_by("-version").first()
