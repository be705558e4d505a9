"""Where the model server is, and how long to wait for it."""

from __future__ import annotations

from functools import cache
from ssl import SSLContext, create_default_context
from typing import Any, Final

import httpx
from django.conf import settings

CONNECT_SECONDS: Final = 5.0


@cache
def tls() -> SSLContext:
    """The certificates, loaded once in a process: it takes longer than a request to a server nearby."""
    return create_default_context()


def client_options(seconds: float, *, url: str = "", token: str = "") -> dict[str, Any]:
    """For httpx.Client or AsyncClient. seconds: the longest that the server may be silent."""
    token = token or settings.MODEL_SERVER_TOKEN
    return {
        "base_url": (url or settings.MODEL_SERVER_URL).rstrip("/"),
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "timeout": httpx.Timeout(seconds, connect=CONNECT_SECONDS),
        "verify": tls(),
    }
