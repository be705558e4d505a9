"""How people sign up: by invitation, and the first one freely."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest

from webapp.accounts.models import User


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Open to the holder of an invitation link, and to the first person of a new installation."""
        return bool(request.session.get("invitation")) or not User.objects.filter(is_superuser=True).exists()
