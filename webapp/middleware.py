"""What middleware of this site has in common: it runs in a thread for a page and on the event loop for an API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest


class HybridMiddleware:
    """Passes requests on. A subclass overrides `answer` and `answer_async`, which do the same: Django calls the one
    that fits what comes behind this middleware, so that no request changes threads on its account."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self.answer_async(request) if self.is_async else self.answer(request)

    def answer(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    async def answer_async(self, request: HttpRequest) -> Any:
        return await self.get_response(request)
