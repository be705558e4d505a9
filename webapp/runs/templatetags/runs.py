"""Filters of the pages about runs and models."""

from __future__ import annotations

from django import template

from webapp.runs import charts

register = template.Library()


@register.filter
def words(name: str) -> str:
    """A metric's or setting's name as a person reads it."""
    return charts.metric_label(name)
