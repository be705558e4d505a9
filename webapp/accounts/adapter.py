"""How people sign up: by invitation, and the first one freely."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from webapp.accounts.models import Invitation, User
from webapp.accounts.selectors import has_superuser, why_closed
from webapp.accounts.services import settle_new_person


def pending_invitation(request: HttpRequest) -> Invitation | None:
    """The invitation whose link this browser has opened, while it can be taken up."""
    rows = Invitation.objects.select_related("project", "created_by")
    found = rows.filter(pk=request.session.get("invitation") or 0).first()
    return None if found is None or why_closed(found) else found


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Open to the holder of an invitation link, and to the first person of a new installation."""
        return pending_invitation(request) is not None or not has_superuser()

    def clean_email(self, email: str) -> str:
        invitation = pending_invitation(self.request)
        if invitation is not None and invitation.email and invitation.email != email.strip().lower():
            raise ValidationError(f"This invitation is for {invitation.email}.")
        return super().clean_email(email).lower()

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        super().save_user(request, user, form, commit=False)
        user.name = form.cleaned_data.get("name", "")
        if commit:
            settle_new_person(user=user, invitation=pending_invitation(request))
            request.session.pop("invitation", None)
        return user
