"""Addresses of pages that belong to a part above the one that links to them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.urls import NoReverseMatch, reverse


def address_of(name: str, *args: Any) -> str:
    """The address of a page that an installation may do without; empty if it does."""
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""


def absolute(address: str) -> str:
    """The address on this site as a link for mails and for people elsewhere: under SITE_URL, whatever the request said
    its host was."""
    url = urlsplit(address)
    query = f"?{url.query}" if url.query else ""
    return f"{settings.SITE_URL.rstrip('/')}{url.path}{query}"
