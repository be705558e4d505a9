"""Forms of the chat's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import template
from django.urls import reverse

from webapp.templatetags.elements import htmx_form

if TYPE_CHECKING:
    from django.template import Context
    from django.utils.safestring import SafeString

register = template.Library()


@register.simple_block_tag(takes_context=True)
def thread_form(context: Context, content: SafeString, view: str, key: int, **attributes: str) -> SafeString:
    """A form whose answer replaces the conversation: `view` is what it posts to, `key` the conversation or message."""
    swap = {"hx_target": "#thread", "hx_select": "#thread", "hx_swap": "outerHTML"}
    return htmx_form(context, content, reverse(view, args=[key]), **swap, **attributes)


@register.simple_block_tag(takes_context=True)
def message_form(context: Context, content: SafeString, view: str, key: int, **attributes: str) -> SafeString:
    """A form whose answer replaces the one message that it is about, `key`."""
    swap = {"hx_target": f"#message-{key}", "hx_swap": "outerHTML"}
    return htmx_form(context, content, reverse(view, args=[key]), **swap, **attributes)
