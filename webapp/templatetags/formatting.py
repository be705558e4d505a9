"""Filters that every template has."""

from __future__ import annotations

import math
from datetime import datetime

from django import template
from django.utils.dateformat import format as date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString

from webapp.text import describe_blank, render_markdown, render_plain

register = template.Library()


@register.filter
def markdown(text: str) -> SafeString:
    return render_markdown(text)


@register.filter
def plain(text: str) -> SafeString:
    """The text as it is, for a `pre`."""
    return render_plain(text)


@register.filter
def blank(text: str) -> str:
    """What a text is that shows nothing, or an empty string."""
    return describe_blank(text)


@register.filter
def figure(value: float | None, digits: int = 3) -> str:
    """A number as a person reads it: 9,791 or 12.35 or 0.123, and a dash for none. `digits` after the point where it is
    below ten, one less for each further place before it; two that count where it is so small that zeros would be left:
    0.0052 or 5e-6."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}∞"
    if value == 0 or isinstance(value, int) or (value.is_integer() and abs(value) >= 10):
        return f"{int(value):,}"
    if abs(value) < 10 ** (1 - digits):
        mantissa, _, exponent = f"{value:.2g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    places = len(str(int(abs(value)))) - 1
    return f"{value:,.{max(0, digits - places)}f}"


@register.filter
def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds as 45 s, 3 min 20 s or 2 h 5 min."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@register.filter(expects_localtime=True)
def when(value: datetime | None, form: str = "j M Y, H:i") -> SafeString | str:
    """A time as the person's clock shows it, in Django's format; the exact one with its zone stands in the title."""
    if value is None:
        return ""
    exact = f"{date_format(value, 'j F Y, H:i:s')} {value:%Z}"
    if zone := getattr(value.tzinfo, "key", ""):
        exact += f" ({zone})"
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), exact, date_format(value, form))


@register.filter
def lookup(mapping: dict[str, object], key: str) -> object:
    return mapping.get(key)
