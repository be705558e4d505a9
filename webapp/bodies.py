"""How much a request may carry, decided before any of it is kept.

Django spools a body to a temporary file before a view sees it, whoever sends it. This stands in front: what declares
too much is refused at once, what streams too much is refused when it passes the limit. A view that takes more says so
with `takes_large_body`, and only for people who have the permission that the view names.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from io import BytesIO
from typing import Any, Final, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.template.loader import render_to_string
from django.urls import Resolver404, resolve

from training.contract import too_large
from webapp.accounts.access import project_for
from webapp.errors import TooLarge, TutelageError, error_body, wants_json

MAX_DRAINED: Final = 1024 * 1024 * 1024  # bytes of a refused body that are read and dropped, so that the answer is seen
MULTIPART_OVERHEAD: Final = 1024 * 1024
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AnyView = TypeVar("AnyView", bound=Callable[..., Any])


def takes_large_body(max_bytes: int) -> Callable[[AnyView], AnyView]:
    """The view of a project's page takes files of `max_bytes` bytes from people who have its permission."""

    def mark(view: AnyView) -> AnyView:
        view.max_body_bytes = max_bytes + MULTIPART_OVERHEAD  # type: ignore[attr-defined]
        return view

    return mark


class BodyLimit:
    """ASGI middleware; see above."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = declared_length(scope)
        limit = settings.MAX_BODY_BYTES
        if declared is not None and declared > limit:
            limit = await limit_for(scope)
            if declared > limit:
                await refuse(scope, send, limit, close=declared > MAX_DRAINED)
                return
        guard = Guard(scope, receive, send, limit)
        await self.app(scope, guard.receive, guard.send)


class Guard:
    """Counts what comes in, and ends the request when it is too much."""

    def __init__(self, scope: Message, receive: Receive, send: Send, limit: int) -> None:
        self.scope, self.inner_receive, self.inner_send = scope, receive, send
        self.limit, self.received = limit, 0
        self.refused = self.started = False

    async def receive(self) -> Message:
        message = await self.inner_receive()
        if message["type"] != "http.request":
            return message
        self.received += len(message.get("body", b""))
        if self.received > self.limit:
            self.limit = max(self.limit, await limit_for(self.scope))
            if self.received > self.limit:
                self.refused = True
                if not self.started:
                    await refuse(self.scope, self.inner_send, self.limit, close=True)
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if not self.refused:
            self.started = True
            await self.inner_send(message)


def declared_length(scope: Message) -> int | None:
    """What Content-Length says; None if it is absent or no number, which the server refuses by itself."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return None


async def limit_for(scope: Message) -> int:
    async with ThreadSensitiveContext():
        return await sync_to_async(large_limit)(scope)


def large_limit(scope: Message) -> int:
    """What the person whose session the request carries may send to this address."""
    request = ASGIRequest(dict(scope), BytesIO())
    try:
        match = resolve(request.path_info)
        max_bytes: int = getattr(match.func, "max_body_bytes", 0)
        if not max_bytes:
            return int(settings.MAX_BODY_BYTES)
        store = import_module(settings.SESSION_ENGINE).SessionStore
        request.session = store(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        project_for(get_user(request), match.kwargs["slug"], match.func.permission)  # type: ignore[attr-defined]
    except (Resolver404, TutelageError):
        return int(settings.MAX_BODY_BYTES)
    finally:
        connections.close_all()
    return max_bytes


async def refuse(scope: Message, send: Send, limit: int, *, close: bool) -> None:
    error = TooLarge(too_large(limit - MULTIPART_OVERHEAD if limit > settings.MAX_BODY_BYTES else limit))
    request = ASGIRequest(dict(scope), BytesIO())
    if wants_json(request):
        kind, text = b"application/json", json.dumps(error_body(request, error.status, error.error_code, error.message))
    else:
        template = "errors/fragment.html" if "HX-Request" in request.headers else "413.html"
        kind, text = b"text/html; charset=utf-8", render_to_string(template, {"error": error})
    body = text.encode()
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    if request.path.startswith("/v1/"):
        headers.append((b"x-request-id", f"req_{secrets.token_hex(12)}".encode()))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
