"""What people see stays theirs: no cache of a proxy or a shared computer keeps what a person was shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control
from django.utils.decorators import sync_and_async_middleware

GetResponse = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def no_store(get_response: GetResponse) -> GetResponse:
    """`Cache-Control: no-store` on every answer to a session or a token. Static files are answered before this."""
    if iscoroutinefunction(get_response):

        async def answer(request: HttpRequest) -> HttpResponseBase:
            return marked(request, await cast("Awaitable[HttpResponseBase]", get_response(request)))

        return answer

    def answer_sync(request: HttpRequest) -> HttpResponseBase:
        return marked(request, get_response(request))

    return answer_sync


def marked(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    session = settings.SESSION_COOKIE_NAME
    if session in request.COOKIES or session in response.cookies or "Authorization" in request.headers:
        patch_cache_control(response, no_store=True)
    return response
