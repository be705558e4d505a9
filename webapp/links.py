"""Addresses of pages that belong to a part above the one that links to them."""

from __future__ import annotations

from typing import Any

from django.urls import NoReverseMatch, reverse


def address_of(name: str, *args: Any) -> str:
    """The address of a page that an installation may do without; empty where it does."""
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""
