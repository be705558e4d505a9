"""The stream of a reply as a browser gets it."""

import asyncio
import json
import uuid
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from django.utils import timezone

from tests.chat.conftest import reply_of
from webapp.chat import generation
from webapp.chat.models import Message
from webapp.chat.services import conversations, replies

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def writing(monkeypatch, deployed, tess):
    """A reply under way: two pieces have come."""
    monkeypatch.setattr(conversations, "start", lambda _: None)
    talk = conversations.begin(user=tess, project=deployed, text="Hello", token=uuid.uuid4())
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    for piece in ("A mathe", "matician\n"):
        replies.append(message_id=reply.pk, text=piece)
    return reply


def parsed(stream: str) -> list[tuple[str, str, str]]:
    """(id, event, data) of each event."""
    found = []
    for block in stream.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            data = json.loads(fields["data"])
            found.append((fields.get("id", ""), fields["event"], data))
    return found


def read(reply: Message, user, meanwhile=None, **headers) -> list:
    async def reading():
        client = AsyncClient()
        await sync_to_async(client.force_login)(user)
        response = await client.get(f"/chat/messages/{reply.pk}/events/", headers=headers)
        assert response["Content-Type"] == "text/event-stream"
        later = asyncio.create_task(meanwhile()) if meanwhile else None
        text = "".join([part.decode() async for part in response.streaming_content])
        if later:
            await later
        return text

    return parsed(asyncio.run(reading()))


def ended(reply):
    async def end():
        await asyncio.sleep(0.05)
        await generation.in_thread(replies.append, message_id=reply.pk, text="!")
        await generation.in_thread(replies.finish, message_id=reply.pk, reason="stop")

    return end


def test_a_reader_gets_what_has_come_and_then_what_comes(writing, tess):
    events = read(writing, tess, ended(writing))

    assert events == [("1", "piece", "A mathe"), ("2", "piece", "matician\n"), ("3", "piece", "!"), ("", "done", {})]


def test_a_reader_that_was_cut_off_goes_on_where_it_was(writing, tess):
    events = read(writing, tess, ended(writing), **{"Last-Event-ID": "2"})

    assert events == [("3", "piece", "!"), ("", "done", {})]


def test_a_finished_reply_is_replayed_and_done(writing, tess):
    replies.finish(message_id=writing.pk, reason="stop")

    assert [event for _, event, _ in read(writing, tess)] == ["piece", "piece", "done"]


def test_a_reader_notices_that_the_writer_is_gone(writing, tess):
    Message.objects.filter(pk=writing.pk).update(heartbeat_at=timezone.now() - timedelta(minutes=1))

    assert read(writing, tess)[-1] == ("", "done", {})
    writing.refresh_from_db()
    assert (writing.state, writing.text) == (Message.State.INTERRUPTED, "A mathematician\n")


def test_without_redis_a_reader_polls(writing, tess, settings):
    settings.REDIS_URL = "redis://127.0.0.1:9/0"

    assert read(writing, tess, ended(writing))[-2:] == [("3", "piece", "!"), ("", "done", {})]


def test_nobody_else_listens(writing, stranger, client):
    client.force_login(stranger)

    assert client.get(f"/chat/messages/{writing.pk}/events/").status_code == 404
