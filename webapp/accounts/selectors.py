"""Reads of people and projects."""

from __future__ import annotations

import hashlib

from django.db.models import Q, QuerySet
from django.utils import timezone
from knox.models import AuthToken

from webapp.accounts.models import Consent, Guidelines, Invitation, Membership, Project, User
from webapp.errors import NotFound


def projects_of(user: User) -> QuerySet[Project]:
    """The person's projects that are not archived; every one for whoever runs the installation."""
    live = Project.objects.filter(archived_at=None)
    return live if user.is_superuser else live.filter(memberships__user=user)


def archived_projects_of(user: User) -> QuerySet[Project]:
    """Archived projects that the person may bring back."""
    gone = Project.objects.exclude(archived_at=None)
    return gone if user.is_superuser else gone.filter(memberships__user=user, memberships__role="owner")


def has_superuser() -> bool:
    """False in an installation that nobody runs yet: the next to sign up will."""
    return User.objects.filter(is_superuser=True).exists()


def current_guidelines(project: Project) -> Guidelines | None:
    return project.guidelines.order_by("-version").first()


def guidelines_version(*, project: Project, version: str) -> Guidelines:
    """The version of that number, the newest where it is empty."""
    chosen = project.guidelines.select_related("created_by")
    found = chosen.filter(version=int(version)).first() if version.isdigit() else chosen.first()
    if found is None:
        raise NotFound(f"{project.name} has no such version of its guidelines.")
    return found


def memberships(project: Project) -> QuerySet[Membership]:
    return project.memberships.select_related("user").order_by("created_at", "id")


def open_invitations(project: Project) -> QuerySet[Invitation]:
    now = timezone.now()
    return project.invitations.filter(
        Q(accepted_at=None), Q(revoked_at=None), Q(expires_at__gt=now)
    ).select_related("created_by").order_by("-created_at")  # fmt: skip


def hash_secret(secret: str) -> str:
    """What is kept of an invitation's secret. The secret has 256 random bits, so a plain hash does."""
    return hashlib.sha256(secret.encode()).hexdigest()


def invitation_by_secret(secret: str) -> Invitation:
    """The invitation behind a link, taken up or not."""
    found = Invitation.objects.select_related("project", "created_by").filter(secret_hash=hash_secret(secret)).first()
    if found is None:
        raise NotFound("This invitation link is not known here. Ask whoever sent it for a new one.")
    return found


def consent_of(*, user: User, project: Project) -> Consent | None:
    """The consent that stands, or none."""
    return Consent.objects.filter(user=user, project=project, withdrawn_at=None).order_by("-granted_at").first()


def tokens_of(user: User) -> QuerySet[AuthToken]:
    return AuthToken.objects.filter(user=user).order_by("-created")  # type: ignore[no-any-return]
