"""The stream of a reply as a browser gets it."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.models import Session
from django.test import AsyncClient, Client
from django.utils import timezone

from tests.chat.conftest import reply_of
from webapp.accounts.models import Membership, User
from webapp.chat import generation, stream_views
from webapp.chat.models import Message
from webapp.chat.selectors import version_of
from webapp.chat.services import conversations, replies

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch, deployed: Any, tess: User) -> Any:
    """A reply under way: two pieces have come."""
    monkeypatch.setattr(conversations, "start_reply", lambda _: None)
    talk = conversations.begin_conversation(user=tess, project=deployed, text="Hello", token=uuid.uuid4())
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
        if fields and fields["event"] != "ping":
            data = json.loads(fields["data"])
            found.append((fields.get("id", ""), fields["event"], data))
    return found


def read(reply: Message, user: Any, meanwhile: Any = None, after: Any = "", **headers: Any) -> list[Any]:
    async def reading() -> Any:
        client = AsyncClient()
        await sync_to_async(client.force_login)(user)
        response = await client.get(
            f"/chat/messages/{reply.pk}/events/", {"after": after} if after else {}, headers=headers
        )
        assert response["Content-Type"] == "text/event-stream"
        later = asyncio.create_task(meanwhile()) if meanwhile else None
        text = "".join([part.decode() async for part in response.streaming_content])  # type: ignore[attr-defined]
        if later:
            await later
        return text

    return parsed(asyncio.run(reading()))


def ended(reply: Any) -> Any:
    async def end() -> None:
        await asyncio.sleep(0.05)
        await generation.run_in_thread(replies.append, message_id=reply.pk, text="!")
        await generation.run_in_thread(replies.finish_reply, message_id=reply.pk, reason="stop")

    return end


def test_a_reader_gets_what_has_come_and_then_what_comes(writing: Any, tess: User) -> None:
    events = read(writing, tess, ended(writing))

    assert events == [("1", "piece", "A mathe"), ("2", "piece", "matician\n"), ("3", "piece", "!"), ("", "done", {})]


def test_a_reader_that_was_cut_off_goes_on_where_it_was(writing: Any, tess: User) -> None:
    events = read(writing, tess, ended(writing), **{"Last-Event-ID": "2"})

    assert events == [("3", "piece", "!"), ("", "done", {})]


def test_a_finished_reply_is_replayed_and_done(writing: Any, tess: User) -> None:
    replies.finish_reply(message_id=writing.pk, reason="stop")

    assert [event for _, event, _ in read(writing, tess)] == ["piece", "piece", "done"]


def test_a_reader_notices_that_the_writer_is_gone(writing: Any, tess: User) -> None:
    Message.objects.filter(pk=writing.pk).update(heartbeat_at=timezone.now() - timedelta(minutes=1))

    assert read(writing, tess)[-1] == ("", "done", {})
    writing.refresh_from_db()
    assert (writing.state, writing.text) == (Message.State.INTERRUPTED, "A mathematician\n")


def test_without_redis_a_reader_polls(writing: Any, tess: User, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:9/0"

    assert read(writing, tess, ended(writing))[-2:] == [("3", "piece", "!"), ("", "done", {})]


def test_nobody_else_listens(writing: Any, stranger: User, client: Client) -> None:
    client.force_login(stranger)

    assert client.get(f"/chat/messages/{writing.pk}/events/").status_code == 404


def test_a_page_hears_a_ping_that_it_can_see(writing: Any, tess: User) -> None:
    async def reading() -> Any:
        stream = stream_views.reply_pieces(writing.pk, 2, lambda: True)
        first = await anext(stream)
        await stream.aclose()
        return first

    assert asyncio.run(reading()) == "event: ping\ndata: {}\n\n"


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "x", "\x00"])
def test_a_number_that_is_none_begins_at_the_start(writing: Any, tess: User, number: Any) -> None:
    replies.finish_reply(message_id=writing.pk, reason="stop")

    assert len(read(writing, tess, after=number)) == 3


def access_ends_by(change: Any, writing: Any, tess: User, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(stream_views, "ACCESS_SECONDS", 0.0)

    async def later() -> None:
        await asyncio.sleep(0.05)
        await generation.run_in_thread(change)

    return read(writing, tess, later)


def test_a_stream_ends_when_its_reader_leaves_the_project(
    writing: Any, tess: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    Membership.objects.get_or_create(user=tess, project=writing.conversation.project)
    events = access_ends_by(lambda: Membership.objects.filter(user=tess).delete(), writing, tess, monkeypatch)

    assert events[-1] == ("", "gone", {})


def test_a_stream_ends_with_the_session_of_its_reader(
    writing: Any, tess: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert access_ends_by(lambda: Session.objects.all().delete(), writing, tess, monkeypatch)[-1] == ("", "gone", {})


def test_a_stream_ends_with_its_conversation(writing: Any, tess: User, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = writing.conversation
    events = access_ends_by(lambda: conversations.delete(conversation=talk), writing, tess, monkeypatch)

    assert events[-1] == ("", "gone", {})


def test_an_open_page_hears_of_a_message_sent_elsewhere(writing: Any, tess: User) -> None:
    talk = writing.conversation
    replies.finish_reply(message_id=writing.pk, reason="stop")

    async def reading() -> Any:
        version = await sync_to_async(version_of)(talk.pk)
        stream = stream_views.changes(talk.pk, version, lambda: True)
        assert await anext(stream) == "event: ping\ndata: {}\n\n"
        news = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.05)
        await generation.run_in_thread(conversations.send, conversation=talk, text="And?", token=uuid.uuid4())
        said = await news
        await stream.aclose()
        return version, said

    version, said = asyncio.run(reading())
    assert said.startswith("event: changed\ndata: ")
    assert version not in said
