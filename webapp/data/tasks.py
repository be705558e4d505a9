"""Celery tasks: wake-up calls for imports."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from celery import shared_task
from django.utils import timezone

from webapp.data import reading, services
from webapp.data.models import Import

RECONCILED_EVERY: Final = 15  # seconds, as the schedule in settings says


@shared_task
def read_import(record_id: int) -> None:
    reading.read_import(record_id=record_id)


@shared_task
def reconcile() -> None:
    """Wake imports whose message was lost or whose worker died."""
    since = timezone.now() - timedelta(seconds=RECONCILED_EVERY)
    for record in Import.objects.filter(state__in=Import.ACTIVE, created_at__lt=since).order_by("pk")[:20]:
        services.wake(record, expires=RECONCILED_EVERY)


@shared_task
def clean_up() -> int:
    services.forget_previews()
    return services.clean_up()
