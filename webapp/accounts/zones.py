"""The time zone in which a person reads times: the one they chose, else their browser's, else UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.db import DatabaseError
from django.http import HttpRequest
from django.utils import timezone

COOKIE: Final = "time_zone"  # house.js sets it
MACHINES: Final = ("/api/", "/v1/", "/static/")  # times there are ISO, in UTC


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo | None:
    """The zone of the tz database; None for a name that is none."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@lru_cache(maxsize=1)
def zones_by_region() -> list[tuple[str, list[tuple[str, str]]]]:
    """Choices of a form, in groups: ("Europe", [("Europe/Berlin", "Berlin"), …])."""
    regions: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(available_timezones()):
        region, _, place = name.partition("/")
        if place and region not in ("Etc", "SystemV", "posix", "right"):
            regions.setdefault(region, []).append((name, place.replace("_", " ").replace("/", ", ")))
    return [("Everywhere", [("UTC", "UTC")]), *sorted(regions.items())]


def browser_zone(request: HttpRequest) -> ZoneInfo | None:
    return zone_named(request.COOKIES.get(COOKIE, "")[:64])


def zone_of(request: HttpRequest) -> tzinfo:
    """For a page that this request asks for."""
    try:
        chosen = zone_named(getattr(request.user, "time_zone", ""))
    except DatabaseError:
        chosen = None  # the view asks for the person again, and its error becomes a page that says what is wrong
    return chosen or browser_zone(request) or timezone.get_default_timezone()


class TimeZoneMiddleware:
    """Pages show times in the person's zone, and their days begin at the person's midnight."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self.answer(request)
        if request.path.startswith(MACHINES):
            return self.get_response(request)
        with timezone.override(zone_of(request)):
            return self.get_response(request)

    async def answer(self, request: HttpRequest) -> Any:
        if request.path.startswith(MACHINES):
            return await self.get_response(request)
        with timezone.override(await sync_to_async(zone_of)(request)):
            return await self.get_response(request)
