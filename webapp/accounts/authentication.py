"""Who a request's API token stands for, and what the token may be used for."""

from __future__ import annotations

import re
from datetime import timedelta
from hmac import compare_digest
from typing import Any, Final

from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed

from webapp.accounts.models import ApiToken, User
from webapp.errors import NotAllowed

TOKEN: Final = re.compile(rb"[!-~]{15,200}")
USED_EVERY: Final = timedelta(minutes=1)  # how exactly the last use is kept, so that reading does not write


class ApiTokenAuthentication(TokenAuthentication):
    """The person behind the token of an Authorization header, and the token."""

    def authenticate_credentials(self, token: bytes) -> tuple[User, ApiToken]:
        if not TOKEN.fullmatch(token):
            raise AuthenticationFailed("This API token is not known.")
        text = token.decode("ascii")
        digest = hash_token(text)
        rows = ApiToken.objects.filter(token_key=text[: CONSTANTS.TOKEN_KEY_LENGTH]).select_related("user")
        api_token = next((row for row in rows if compare_digest(digest, row.digest)), None)
        if api_token is None or not api_token.user.is_active:
            raise AuthenticationFailed("This API token is not known.")
        check_not_ended(api_token)
        note_use(api_token)
        return api_token.user, api_token


def check_not_ended(token: ApiToken) -> None:
    changed = token.user.password_changed_at
    if changed is not None and token.created < changed:
        raise AuthenticationFailed(
            "This API token ended when the password changed. Make a new one on your profile page."
        )
    if token.expiry is not None and token.expiry <= timezone.now():
        raise AuthenticationFailed("This API token has ended. Make a new one on your profile page.")


def note_use(token: ApiToken) -> None:
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > USED_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)


def check_scope(token: Any, scope: str) -> None:
    """Raise NotAllowed where the request came with a token that is not for this. A session has every scope."""
    if isinstance(token, ApiToken) and scope not in token.scopes:
        has = ", ".join(token.scopes)
        raise NotAllowed(
            f"This API token is for {has}, and this needs {scope}. Make one for it on your profile page.",
            code="scope_missing",
        )
