"""A page, or the part of it that htmx asks for, at one address."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers


def wants_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of a page. Restoring a page from the history, it wants the whole."""
    htmx = getattr(request, "htmx", None)
    return htmx is not None and bool(htmx) and not htmx.history_restore_request


def render_page_or_fragment(
    request: HttpRequest, page: str, fragment: str, context: dict[str, Any], *, as_fragment: bool = True
) -> HttpResponse:
    """The template `fragment` where htmx asks for it and `as_fragment` holds, else `page`.

    The answer varies with the header, so that no browser shows a kept fragment as the page when it goes back.
    """
    response = render(request, fragment if as_fragment and wants_fragment(request) else page, context)
    patch_vary_headers(response, ["HX-Request"])
    return response
