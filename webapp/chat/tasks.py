"""What the scheduler does for the chat."""

from __future__ import annotations

from celery import shared_task

from webapp.chat.services.replies import drop_old_pieces, interrupt_stale


@shared_task
def reconcile_replies() -> None:
    """Mark replies whose writer is gone. Every ten seconds."""
    interrupt_stale()


@shared_task
def clean_up_chats() -> None:
    """Drop pieces of finished replies and conversations deleted a month ago. Once an hour."""
    drop_old_pieces()
