"""Conversations, and stand-ins for the model server that say what a test wants."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from tests import factories
from webapp.accounts.models import Project, User
from webapp.chat.models import Conversation, Message
from webapp.chat.services import conversations, replies


@pytest.fixture
def deployed(project: Project) -> Project:
    factories.deployment(project)
    return project


@pytest.fixture
def talk(deployed: Project, tess: User) -> Conversation:
    """Tess has asked something; the reply is pending."""
    return conversations.begin_conversation(
        user=tess, project=deployed, text="Who was Ada Lovelace?", token=uuid.uuid4()
    )


@pytest.fixture
def answered(talk: Conversation) -> Message:
    """Tess has got her reply, to its end."""
    return answer(talk, "A mathematician.")


def reply_of(talk: Conversation) -> Message:
    talk.refresh_from_db()
    assert talk.leaf is not None
    return talk.leaf


def answer(talk: Conversation, text: str) -> Message:
    """Write the pending reply, whole."""
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    if text:
        replies.append(message_id=reply.pk, text=text)
    replies.finish_reply(message_id=reply.pk, reason="stop")
    reply.refresh_from_db()
    return reply


def chunk(text: str = "", finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]}


def saying(
    *texts: str, finish: str = "stop", then: Exception | None = None
) -> Callable[..., AsyncIterator[dict[str, Any]]]:
    """A model that streams these pieces; `then` is raised in place of the end."""

    async def chat(body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for text in texts:
            yield chunk(text)
        if then is not None:
            raise then
        yield chunk(finish=finish)

    return chat
