"""What the scheduler does for the chat."""

from __future__ import annotations

from celery import shared_task

from webapp.chat.services.replies import interrupt_stale, tidy


@shared_task
def reconcile() -> None:
    """Mark replies whose writer is gone. Every ten seconds."""
    interrupt_stale()


@shared_task
def clean_up() -> None:
    """Drop pieces of finished replies and conversations deleted a month ago. Once an hour."""
    tidy()
