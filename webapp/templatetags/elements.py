"""Elements that pages share: links of the navigation, pagers, and forms that htmx sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template
from django.forms.utils import flatatt
from django.template.defaulttags import CsrfTokenNode
from django.urls import reverse
from django.utils.html import format_html

if TYPE_CHECKING:
    from django.core.paginator import Page
    from django.template import Context
    from django.utils.safestring import SafeString

register = template.Library()


@register.inclusion_tag("nav_link.html", takes_context=True)
def nav_link(context: Context, text: str, view: str, *args: Any, name: str, current: str) -> dict[str, str]:
    """A link of the navigation or of tabs to `view`; `current` is the `name` of the link that the page belongs to."""
    address = reverse(view, args=args)
    state = "page" if context["request"].path == address else "true"
    return {"address": address, "text": text, "state": state if name == current else ""}


@register.inclusion_tag("pager.html")
def pager(page: Page[Any]) -> dict[str, Page[Any]]:
    """Links to the pages before and after `page`, which keep the rest of the address."""
    return {"page": page}


@register.simple_block_tag(takes_context=True)
def htmx_form(context: Context, content: SafeString, address: str, **attributes: str) -> SafeString:
    """A form that htmx posts to `address`, and the browser where scripts are off. `hx_target` becomes hx-target."""
    dashed = {name.replace("_", "-"): value for name, value in attributes.items()}
    csrf_token = CsrfTokenNode().render(context)
    return format_html(
        '<form method="post" action="{0}" hx-post="{0}"{1}>{2}{3}</form>', address, flatatt(dashed), csrf_token, content
    )
