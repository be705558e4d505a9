"""Deleting an account: the person's chats go for good, their name and address go, their work for projects stays."""

from __future__ import annotations

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.db import transaction
from django.utils import timezone

from annotations.models import Draft, Lease
from annotations.services.leases import release
from webapp.accounts.memberships import remove_member
from webapp.accounts.models import ApiToken, Consent, Invitation, Project, User
from webapp.chat.models import Conversation, Erasure
from webapp.chat.selectors import projects_with_chats_of
from webapp.chat.services.erasure import erase_conversations, erase_uses
from webapp.errors import Conflict

DELETED_NAME = "Deleted person"


@transaction.atomic
def delete_account(*, user: User) -> None:
    """Raises Conflict if nobody else could run a project, or the installation, afterwards."""
    user = User.objects.select_for_update().get(pk=user.pk)
    if user.is_superuser and not User.objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk).exists():
        raise Conflict("Nobody else runs this installation. Make another person an administrator first.")
    for project in projects_with_chats_of(user):
        erase_uses(user=user, project=project)
    conversations = Conversation.objects.filter(user=user)
    erase_conversations(conversations=conversations, reason=Erasure.Reason.ACCOUNT)
    for lease in Lease.objects.filter(person=user, outcome=Lease.Outcome.HELD).select_related("task__project"):
        release(lease=lease)
    Draft.objects.filter(person=user).delete()
    for project in Project.objects.filter(memberships__user=user):
        remove_member(project=project, user_id=user.pk, by=user)
    Consent.objects.filter(user=user).delete()
    Erasure.objects.filter(user=user).update(user=None)
    forget_identity(user)


def forget_identity(user: User) -> None:
    """Nobody can sign in as this person anymore, and nothing tells who they were."""
    Invitation.objects.filter(email__iexact=user.email, accepted_at=None).update(revoked_at=timezone.now())
    Invitation.objects.filter(email__iexact=user.email).update(email="")
    EmailAddress.objects.filter(user=user).delete()
    Authenticator.objects.filter(user=user).delete()
    ApiToken.objects.filter(user=user).delete()
    user.name, user.email = DELETED_NAME, f"deleted-{user.pk}@deleted.invalid"
    user.is_active = user.is_staff = user.is_superuser = False
    user.time_zone = ""
    user.set_unusable_password()
    user.save()
