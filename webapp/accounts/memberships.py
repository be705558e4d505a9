"""Who belongs to a project: roles, members, and invitations that make members."""

from __future__ import annotations

import secrets
from datetime import timedelta

from allauth.account.models import EmailAddress
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from webapp.accounts.access import may
from webapp.accounts.models import Invitation, Membership, Project, Role, User
from webapp.accounts.selectors import hash_secret, may_invite, why_closed
from webapp.accounts.validation import save_valid
from webapp.errors import Conflict, NotAllowed, NotFound

# ------------------------------------------------------------------------------------------------------------ members


def check_owner_matters(project: Project, by: User, *roles: str) -> None:
    if Role.OWNER in roles and not may(by, "project.own", project):
        raise NotAllowed("Only an owner can make somebody an owner, or change what an owner may do.")


def locked_membership(project: Project, user_id: int) -> Membership:
    """The person's membership. All of the project's are locked, so that two owners cannot leave at the same moment."""
    rows = list(Membership.objects.select_for_update().select_related("user").filter(project=project).order_by("id"))
    membership = next((row for row in rows if row.user_id == user_id), None)
    if membership is None:
        raise NotFound(f"This person is not a member of {project.name} anymore.")
    return membership


def check_an_owner_stays(project: Project, leaving: Membership) -> None:
    owners = Membership.objects.filter(project=project, role=Role.OWNER)
    if leaving.role == Role.OWNER and not owners.exclude(pk=leaving.pk).exists():
        raise Conflict(f"{leaving.user} is the only owner of {project.name}. Make somebody else an owner first.")


@transaction.atomic
def change_role(*, project: Project, user_id: int, role: Role, by: User) -> Membership:
    """Invitations that the person made and could not make any more are withdrawn."""
    membership = locked_membership(project, user_id)
    check_owner_matters(project, by, membership.role, role)
    if role != Role.OWNER:
        check_an_owner_stays(project, membership)
    membership.role = role
    membership.save(update_fields=["role"])
    withdraw_invitations(project, made_by=user_id)
    return membership


@transaction.atomic
def remove_member(*, project: Project, user_id: int, by: User) -> User:
    """Take a person out of the project. What they labeled stays; open invitations that they made, and those to an
    address of theirs, are withdrawn."""
    membership = locked_membership(project, user_id)
    if user_id != by.pk:
        check_owner_matters(project, by, membership.role)
    check_an_owner_stays(project, membership)
    membership.delete()
    person = membership.user
    withdraw_invitations(project, made_by=user_id)
    addresses = [person.email, *EmailAddress.objects.filter(user=person).values_list("email", flat=True)]
    unanswered_invitations(project).filter(email__in=[address.lower() for address in addresses]).update(
        revoked_at=timezone.now()
    )
    return person


# -------------------------------------------------------------------------------------------------------- invitations


def unanswered_invitations(project: Project) -> QuerySet[Invitation]:
    return Invitation.objects.filter(project=project, accepted_at=None, revoked_at=None)


def withdraw_invitations(project: Project, *, made_by: int) -> None:
    """Withdraw the person's invitations that they could not make now."""
    for invitation in (
        unanswered_invitations(project).filter(created_by_id=made_by).select_related("project", "created_by")
    ):
        if why_closed(invitation):
            invitation.revoked_at = timezone.now()
            invitation.save(update_fields=["revoked_at"])


@transaction.atomic
def invite(
    *,
    project: Project,
    role: Role,
    by: User,
    email: str = "",
    lifetime: timedelta = timedelta(days=14),
    secret: str = "",
) -> tuple[Invitation, str]:
    """An invitation and the secret of its link, of which only the hash is kept.

    With a `secret` given, asking again makes no second invitation. Raises Conflict if that one is closed by now.
    """
    if not may_invite(by, project, role):
        raise NotAllowed("Only managers invite people, and only an owner invites another owner.")
    secret = secret or secrets.token_urlsafe(32)
    before = project.invitations.filter(secret_hash=hash_secret(secret)).first()
    if before is not None:
        if reason := why_closed(before):
            raise Conflict(f"{reason} Make a new one.")
        return before, secret
    invitation = Invitation(
        project=project,
        role=role,
        email=email.strip().lower(),
        created_by=by,
        secret_hash=hash_secret(secret),
        expires_at=timezone.now() + lifetime,
    )
    save_valid(invitation)
    return invitation, secret


@transaction.atomic
def revoke_invitation(*, project: Project, invitation_id: int) -> Invitation:
    invitation = Invitation.objects.select_for_update().filter(project=project, pk=invitation_id).first()
    if invitation is None:
        raise NotFound("This invitation is not there anymore.")
    if invitation.accepted_at is not None:
        raise Conflict("This invitation has been taken up. Remove the member instead.")
    invitation.revoked_at = invitation.revoked_at or timezone.now()
    invitation.save(update_fields=["revoked_at"])
    return invitation


@transaction.atomic
def accept_invitation(*, user: User, invitation: Invitation) -> Membership:
    """Make the person a member. Accepting one's own again changes nothing; a member's role is never lowered.

    The invitation must be open, which it is only as long as its maker may give that role. One that names an address is
    for the account with that address; nobody proves that the address is theirs unless the installation verifies
    addresses, so what guards a link is its secret.
    """
    invitation = (
        Invitation.objects.select_for_update(of=("self",)).select_related("project", "created_by").get(pk=invitation.pk)
    )
    project = invitation.project
    already = Membership.objects.filter(project=project, user=user).first()
    if invitation.accepted_by_id == user.pk and already:
        return already
    if reason := why_closed(invitation):
        raise Conflict(f"{reason} Ask for a new one.")
    if invitation.email and invitation.email != user.email.lower():
        raise NotAllowed(f"This invitation is for {invitation.email}; you are signed in as {user.email}.")
    if already:
        return already
    invitation.accepted_by, invitation.accepted_at = user, timezone.now()
    invitation.save(update_fields=["accepted_by", "accepted_at"])
    return Membership.objects.create(project=project, user=user, role=invitation.role)
