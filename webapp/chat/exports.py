"""A person's own conversations as rows to take away: every branch, and what the person said about each reply.

All messages have the same keys and none is null, so that readers which guess types from the first rows of a file are
right about the rest: 0 is no message, "" no text, and a thumb is 1, 0 or -1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webapp.accounts.models import Project, User
from webapp.batches import rows_in_batches
from webapp.chat.models import Conversation, Feedback, Message
from webapp.downloads import iso_time


def conversation_rows(user: User, project: Project) -> Iterator[dict[str, Any]]:
    """Deleted conversations too, while they are kept."""
    conversations = Conversation.objects.filter(user=user, project=project).select_related("project")
    for conversation in rows_in_batches(conversations, 100):
        yield conversation_row(conversation)


def conversation_row(conversation: Conversation) -> dict[str, Any]:
    feedback_on = {
        feedback.message_id: feedback for feedback in Feedback.objects.filter(message__conversation=conversation)
    }
    return {
        "id": str(conversation.pk),
        "title": conversation.title,
        "project": conversation.project.slug,
        "created_at": iso_time(conversation.created_at),
        "deleted_at": iso_time(conversation.deleted_at) if conversation.deleted_at else "",
        "messages": [
            message_row(message, feedback_on.get(message.pk))
            for message in conversation.messages.select_related("model")
        ],
    }


def message_row(message: Message, feedback: Feedback | None) -> dict[str, Any]:
    opinion = feedback or Feedback()
    return {
        "id": message.pk,
        "parent": message.parent_id or 0,
        "role": message.role,
        "content": message.text,
        "state": message.state,
        "model": message.model.name if message.model else "",
        "created_at": iso_time(message.created_at),
        "thumb": int(opinion.thumb),
        "reasons": ",".join(opinion.reasons),
        "comment": opinion.comment,
        "better_answer": opinion.better_answer,
        "preferred_over": opinion.preferred_over_id or 0,
        "verdict": opinion.verdict,
        "compared_with": opinion.compared_with_id or 0,
    }
