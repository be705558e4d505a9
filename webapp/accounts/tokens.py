"""API tokens: who a request's token stands for."""

from __future__ import annotations

import re
from typing import Any, Final

from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

TOKEN: Final = re.compile(rb"[!-~]{15,200}")


class ApiTokenAuthentication(TokenAuthentication):
    """The person behind the token of an Authorization header."""

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        if not TOKEN.fullmatch(token):
            raise AuthenticationFailed("Invalid token.")
        person, found = super().authenticate_credentials(token)
        return person, found
