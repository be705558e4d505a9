"""What people see stays theirs: no cache of a proxy or a shared computer keeps what a person was shown."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control

from webapp.middleware import HybridMiddleware


class NoStoreMiddleware(HybridMiddleware):
    """`Cache-Control: no-store` on every answer to a session or a token. Static files are answered before this."""

    def answer(self, request: HttpRequest) -> Any:
        return marked(request, super().answer(request))

    async def answer_async(self, request: HttpRequest) -> Any:
        return marked(request, await super().answer_async(request))


def marked(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    session = settings.SESSION_COOKIE_NAME
    if session in request.COOKIES or session in response.cookies or "Authorization" in request.headers:
        patch_cache_control(response, no_store=True)
    return response
