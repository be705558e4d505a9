"""The time zone in which a person reads times: the one they chose, else their browser's, else UTC."""

from __future__ import annotations

from datetime import tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from asgiref.sync import sync_to_async
from django.db import DatabaseError
from django.http import HttpRequest
from django.utils import timezone

from webapp.middleware import HybridMiddleware

COOKIE: Final = "time_zone"  # site.js sets it
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
        region, _, city = name.partition("/")
        if city and region not in ("Etc", "SystemV", "posix", "right"):
            regions.setdefault(region, []).append((name, city.replace("_", " ").replace("/", ", ")))
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


class TimeZoneMiddleware(HybridMiddleware):
    """Pages show times in the person's zone, and their days begin at the person's midnight."""

    def answer(self, request: HttpRequest) -> Any:
        if request.path.startswith(MACHINES):
            return super().answer(request)
        with timezone.override(zone_of(request)):
            return super().answer(request)

    async def answer_async(self, request: HttpRequest) -> Any:
        if request.path.startswith(MACHINES):
            return await super().answer_async(request)
        with timezone.override(await sync_to_async(zone_of)(request)):
            return await super().answer_async(request)
