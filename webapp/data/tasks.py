"""Celery tasks: wake-up calls for imports."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from webapp.data import services
from webapp.data.models import Import


@shared_task
def read_import(record_id: int) -> None:
    services.read_import(record_id=record_id)


@shared_task
def reconcile() -> None:
    """Wake imports whose message was lost or whose worker died."""
    since = timezone.now() - timedelta(minutes=1)
    for record in Import.objects.filter(state=Import.State.WAITING, created_at__lt=since)[:20]:
        services.wake(record)
