"""What every request passes first: the token, where it comes from, a request id, and the counters."""

from __future__ import annotations

import hmac
import re
import secrets
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from training.serve.metrics import Metrics
from training.serve.protocol import APIError

PATHS: Final = {
    "/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter", "/tokenize",
}  # fmt: skip
GUARDED: Final = ("/v1/", "/tokenize", "/metrics")
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Gate:
    """Checks the bearer token, refuses pages of other sites, names and counts requests. /health alone is answered
    without the token; `has_token` of the scope says whether the request carries it, or none is set."""

    def __init__(self, app: ASGIApp, token: str, metrics: Metrics) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else b""
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path: str = scope["path"]
        request_id = given_id(headers.get("x-request-id", "")) or f"req_{secrets.token_hex(12)}"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
                counted_path = (
                    "/v1/models/NAME" if path.startswith("/v1/models/") else path if path in PATHS else "other"
                )
                self._metrics.requests.labels(counted_path, message["status"]).inc()
            await send(message)

        authorization = headers.get("authorization", "").encode()
        scope["has_token"] = not self._expected or hmac.compare_digest(authorization, self._expected)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            extra = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
            await JSONResponse(refusal.body, refusal.status, extra)(scope, receive, counted)
            return
        await self._app(scope, receive, counted)

    def _refusal(self, scope: Scope, headers: Headers) -> APIError | None:
        if scope["path"].startswith(GUARDED) and not scope["has_token"]:
            return APIError(401, "this server wants a bearer token, and this is not the one")
        if scope["method"] not in ("GET", "HEAD") and comes_from_a_page(headers):
            return APIError(403, "this server does not answer pages that other addresses serve")
        return None


def given_id(name: str) -> str:
    return name if REQUEST_ID.fullmatch(name) else ""


def comes_from_a_page(headers: Headers) -> bool:
    """Whether a browser sends this for a page that this server did not serve. A page may call itself by any name that
    leads here, so only names that always mean this machine count as ours."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    url = urlsplit(origin)
    return url.netloc != headers.get("host") or not always_here(url.hostname or "")


def always_here(host: str) -> bool:
    return host == "localhost" or bool(re.fullmatch(r"[0-9.]+|[0-9a-f:]+", host))
