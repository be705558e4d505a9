"""Reads of people and projects."""

from __future__ import annotations

import hashlib
from typing import Final

from django.db.models import F, Q, QuerySet, Value
from django.utils import timezone

from webapp.accounts.access import may
from webapp.accounts.models import Consent, Guidelines, Invitation, Membership, Project, Role, User
from webapp.errors import NotFound

MAX_PEOPLE: Final = 200  # on a page


def projects_of(user: User) -> QuerySet[Project]:
    """The person's projects that are not archived, each with their `role`; every one for whoever runs the
    installation, as an owner."""
    live = Project.objects.filter(archived_at=None)
    if user.is_superuser:
        return live.annotate(role=Value(Role.OWNER.value))
    return live.filter(memberships__user=user).annotate(role=F("memberships__role"))


def archived_projects_of(user: User) -> QuerySet[Project]:
    """Archived projects that the person may bring back."""
    gone = Project.objects.exclude(archived_at=None)
    return gone if user.is_superuser else gone.filter(memberships__user=user, memberships__role="owner")


def has_superuser() -> bool:
    """False in an installation that nobody runs yet: the next to sign up will."""
    return User.objects.filter(is_superuser=True).exists()


def find_people(text: str = "") -> QuerySet[User]:
    """Everyone with an account whose name or address contains the text."""
    users = User.objects.filter(Q(name__icontains=text) | Q(email__icontains=text)) if text else User.objects.all()
    return users.prefetch_related("memberships__project").order_by("name", "email")


def current_guidelines(project: Project) -> Guidelines | None:
    return project.guidelines.order_by("-version").first()


def guidelines_version(*, project: Project, version: int | None) -> Guidelines:
    """The version of that number, the newest where it is none."""
    chosen = project.guidelines.select_related("created_by")
    guidelines = chosen.first() if version is None else chosen.filter(version=version).first()
    if guidelines is None:
        raise NotFound(f"{project.name} has no such version of its guidelines.")
    return guidelines


def memberships(project: Project) -> QuerySet[Membership]:
    return project.memberships.select_related("user").order_by("created_at", "id")


def may_invite(user: User, project: Project, role: str) -> bool:
    """Owners invite to every role, managers to every role but owner."""
    return may(user, "project.own" if role == Role.OWNER else "project.manage", project)


def why_closed(invitation: Invitation) -> str:
    """A sentence that says why nobody can take the invitation up; empty while it is open."""
    if invitation.accepted_at is not None:
        return "This invitation has already been taken up."
    if invitation.revoked_at is not None or not may_invite(invitation.created_by, invitation.project, invitation.role):
        return "This invitation has been withdrawn."
    if invitation.expires_at <= timezone.now():
        return "This invitation has expired."
    if invitation.project.archived_at is not None:
        return f"{invitation.project.name} is archived and takes no new members."
    return ""


def open_invitations(project: Project) -> list[Invitation]:
    """Those that can be taken up, newest first."""
    waiting = project.invitations.filter(accepted_at=None, revoked_at=None, expires_at__gt=timezone.now())
    rows = waiting.select_related("project", "created_by").order_by("-created_at")
    return [invitation for invitation in rows if not why_closed(invitation)]


def hash_secret(secret: str) -> str:
    """What is kept of an invitation's secret. The secret has 256 random bits, so a plain hash does."""
    return hashlib.sha256(secret.encode()).hexdigest()


def invitation_by_secret(secret: str) -> Invitation:
    """The invitation behind a link, taken up or not."""
    invitation = (
        Invitation.objects.select_related("project", "created_by").filter(secret_hash=hash_secret(secret)).first()
    )
    if invitation is None:
        raise NotFound("This invitation link is not known here. Ask whoever sent it for a new one.")
    return invitation


def consent_of(*, user: User, project: Project) -> Consent | None:
    """The consent that stands, or none."""
    return Consent.objects.filter(user=user, project=project, withdrawn_at=None).order_by("-granted_at").first()
