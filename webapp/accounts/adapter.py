"""How people sign up: by invitation, and the first one freely."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context as current
from allauth.core.internal.ratelimit import truncate_ip
from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme

from webapp.accounts.models import Invitation, User
from webapp.accounts.selectors import has_superuser, why_closed
from webapp.accounts.services import settle_new_person
from webapp.links import absolute


def pending_invitation(request: HttpRequest) -> Invitation | None:
    """The invitation whose link this browser has opened, while it can be taken up."""
    rows = Invitation.objects.select_related("project", "created_by")
    invitation = rows.filter(pk=request.session.get("invitation") or 0).first()
    return None if invitation is None or why_closed(invitation) else invitation


class AccountAdapter(DefaultAccountAdapter):
    def is_safe_url(self, url: str) -> bool:
        """Where a `next` may lead: this site, under the name that it was asked by."""
        return url_has_allowed_host_and_scheme(url, allowed_hosts={current.request.get_host()})

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """With links under SITE_URL, whatever the request said its host was."""
        links = {name: absolute(value) for name, value in context.items() if name.endswith("_url")}
        host = urlsplit(settings.SITE_URL).netloc
        super().send_mail(template_prefix, email, {**context, **links, "current_site": {"name": host, "domain": host}})

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Failed sign-ins count by account and address: nobody elsewhere can lock the right person out."""
        key: str = super()._get_login_attempts_cache_key(request, **credentials)
        return f"{key}:{truncate_ip(self.get_client_ip(request))}"

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Open to the holder of an invitation link, and to the first person of a new installation."""
        return pending_invitation(request) is not None or not has_superuser()

    def clean_email(self, email: str) -> str:
        invitation = pending_invitation(self.request)
        if invitation is not None and invitation.email and invitation.email != email.strip().lower():
            raise ValidationError(f"This invitation is for {invitation.email}.")
        return str(super().clean_email(email)).lower()

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        super().save_user(request, user, form, commit=False)
        user.name = form.cleaned_data.get("name", "")
        if commit:
            settle_new_person(user=user, invitation=pending_invitation(request))
            request.session.pop("invitation", None)
        return user
