"""Celery tasks of blind comparisons."""

from __future__ import annotations

from celery import shared_task

from webapp.comparisons.services import follow_comparisons


@shared_task(expires=30)
def follow() -> dict[str, int]:
    return follow_comparisons()
