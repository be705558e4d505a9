"""Our middleware serves a page in its thread and an API on the event loop, in one frame."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils import timezone
from django.utils.module_loading import import_string

from webapp.middleware import HybridMiddleware

OURS = [path for path in settings.MIDDLEWARE if path.startswith("webapp.")]


def asked_in_tokyo() -> HttpRequest:
    request = RequestFactory().get("/")
    request.COOKIES["time_zone"] = "Asia/Tokyo"
    request.user = None  # type: ignore[assignment]
    return request


@pytest.mark.parametrize("path", OURS)
def test_it_passes_a_page_on_in_the_same_thread(path: str) -> None:
    seen: list[Any] = []

    def page(request: HttpRequest) -> HttpResponse:
        seen.append(threading.get_ident())
        return HttpResponse("page")

    middleware = import_string(path)(page)
    assert isinstance(middleware, HybridMiddleware)
    assert not iscoroutinefunction(middleware)
    assert middleware(asked_in_tokyo()).content == b"page"
    assert seen == [threading.get_ident()]


@pytest.mark.parametrize("path", OURS)
def test_it_passes_a_request_on_on_the_event_loop(path: str) -> None:
    seen: list[Any] = []

    async def endpoint(request: HttpRequest) -> HttpResponse:
        seen.append(asyncio.get_running_loop())
        return HttpResponse("answer")

    async def ask() -> bytes:
        middleware = import_string(path)(endpoint)
        assert iscoroutinefunction(middleware)
        response = await middleware(asked_in_tokyo())
        assert seen == [asyncio.get_running_loop()]
        return bytes(response.content)

    assert asyncio.run(ask()) == b"answer"


def test_the_zone_of_a_person_holds_on_the_event_loop_too() -> None:
    async def endpoint(request: HttpRequest) -> HttpResponse:
        return HttpResponse(timezone.get_current_timezone_name())

    async def ask() -> tuple[bytes, str]:
        response = await import_string("webapp.accounts.zones.TimeZoneMiddleware")(endpoint)(asked_in_tokyo())
        return response.content, timezone.get_current_timezone_name()

    assert asyncio.run(ask()) == (b"Asia/Tokyo", "UTC")
