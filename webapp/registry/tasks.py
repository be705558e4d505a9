"""Celery tasks of the registry."""

from __future__ import annotations

from celery import shared_task

from webapp.registry import services


@shared_task(expires=30)
def reload_deployments() -> int:
    return services.reload_deployments()
