"""Celery tasks: wake-up calls for imports."""

from __future__ import annotations

from celery import shared_task

from webapp.data import reading, services


@shared_task
def read_import(record_id: int) -> None:
    reading.run_import(record_id=record_id)


@shared_task
def reconcile_imports() -> None:
    """Wake imports whose message was lost or whose worker died."""
    services.reconcile_imports()


@shared_task
def clean_up_imports() -> int:
    services.forget_previews()
    return services.delete_old_files()
