"""Takes every request under /v1/ before the middleware of pages: no session, no CSRF, no HTML, no thread held while a
reply is written. Each answer is JSON (or an event stream), with a request id."""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.http.request import UnreadablePostError
from django.urls import Resolver404, resolve

from training.contract import RequestRefused, too_large
from webapp.api.openai.answers import failure, refused
from webapp.errors import TutelageError
from webapp.middleware import HybridMiddleware

log = logging.getLogger(__name__)

PREFIX: Final = "/v1/"
PREFLIGHT_SECONDS: Final = 600
HERE: Final = "There are /v1/chat/completions, /v1/completions and /v1/models."


class OpenAIMiddleware(HybridMiddleware):
    def answer(self, request: HttpRequest) -> Any:
        return async_to_sync(answer)(request) if is_ours(request) else super().answer(request)

    async def answer_async(self, request: HttpRequest) -> Any:
        return await (answer(request) if is_ours(request) else super().answer_async(request))


def is_ours(request: HttpRequest) -> bool:
    return request.path_info.startswith(PREFIX) or request.path_info == PREFIX.rstrip("/")


async def answer(request: HttpRequest) -> HttpResponseBase:
    request_id = f"req_{secrets.token_hex(12)}"
    try:
        response = await route(request)
    except RequestRefused as refusal:
        response = failure(refusal)
        log.info("%s %s %s: %s %s", request_id, request.method, request.path, refusal.code, refusal.message)
    except TutelageError as error:
        response = failure(refused(error))
        log.info("%s %s %s: %s %s", request_id, request.method, request.path, error.error_code, error.data)
    except Exception:
        log.exception("%s %s %s failed", request_id, request.method, request.path)
        message = "Something broke here. The details are in the log of the site."
        response = failure(RequestRefused(message, status=500, code="server_error"))
    response["x-request-id"] = request_id
    response["X-Content-Type-Options"] = "nosniff"
    response.setdefault("Cache-Control", "no-store")
    allow_origin(request, response)
    return response


async def route(request: HttpRequest) -> HttpResponseBase:
    """The endpoint's answer. Raises RequestRefused if there is none."""
    try:
        request.get_host()
        match = resolve(request.path_info)
    except DisallowedHost:
        raise RequestRefused("This site does not answer to that host name.", code="invalid_host") from None
    except Resolver404:
        raise no_such_address(request.path_info) from None
    methods: tuple[str, ...] = match.func.methods  # type: ignore[attr-defined]  # every view of this API has them
    if request.method == "OPTIONS":
        return HttpResponse(status=204, headers={"Allow": ", ".join((*methods, "OPTIONS"))})
    if request.method not in methods:
        response = failure(
            RequestRefused(
                f"{request.path_info} takes {' and '.join(methods)}, not {request.method}.", status=405,
                code="method_not_allowed",
            )
        )  # fmt: skip
        response["Allow"] = ", ".join((*methods, "OPTIONS"))
        return response
    try:
        result: HttpResponseBase = await match.func(request, *match.args, **match.kwargs)
    except RequestDataTooBig:
        raise RequestRefused(too_large(), status=413, code="request_too_large") from None
    except UnreadablePostError:
        raise RequestRefused("The request was cut off. Send it again.", code="invalid_json") from None
    return result


def no_such_address(path: str) -> RequestRefused:
    shortened = path if len(path) <= 100 else path[:100] + "…"
    hint = (
        f"Leave out the slash at the end: {shortened.rstrip('/')}." if path.endswith("/") and path != PREFIX else HERE
    )
    return RequestRefused(f"There is no {shortened} here. {hint}", status=404, code="not_found")


def allow_origin(request: HttpRequest, response: HttpResponseBase) -> None:
    """Lets pages of the origins in CORS_ALLOWED_ORIGINS read answers. They carry a token, never a cookie."""
    allowed: list[str] = settings.CORS_ALLOWED_ORIGINS
    if not allowed:
        return
    response["Vary"] = "Origin"
    origin = request.headers.get("Origin", "")
    if not origin or (origin not in allowed and "*" not in allowed):
        return
    response["Access-Control-Allow-Origin"] = origin
    response["Access-Control-Expose-Headers"] = "x-request-id, retry-after"
    if request.method == "OPTIONS":
        response["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        requested_headers = request.headers.get("Access-Control-Request-Headers", "authorization, content-type")
        response["Access-Control-Allow-Headers"] = requested_headers[:1000]
        response["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
