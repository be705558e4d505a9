"""Celery tasks: wake-up calls for sample projects."""

from __future__ import annotations

from typing import Final

from celery import shared_task

from webapp.demo import services

PAUSE: Final = 1.0  # seconds before a look at what is still under way


@shared_task
def go_on(demo_id: int) -> None:
    """Take a demo further, and have it looked at again while it is under way."""
    if services.take_turn(demo_id=demo_id):
        services.DEMOS.send(demo_id, countdown=PAUSE)


@shared_task(expires=10)
def reconcile_sample_projects() -> int:
    return services.reconcile_demos()
