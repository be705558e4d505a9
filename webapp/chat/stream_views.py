"""What an open page hears as server-sent events: the pieces of a reply, and that its conversation has changed.

A stream says something at least every PING_SECONDS, as an event that the page can see, so that a page which hears
nothing for SILENCE_SECONDS knows that the connection is dead. It ends when its reader may no longer read.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.http import StreamingHttpResponse

from webapp.accounts.access import allow, declares
from webapp.accounts.models import User
from webapp.accounts.requests import Request
from webapp.chat import selectors
from webapp.chat.live import Wait, listening
from webapp.chat.services import replies
from webapp.errors import TutelageError
from webapp.params import parse_int

POLL_SECONDS = 1.0
PING_SECONDS = 10.0
SILENCE_SECONDS = 25.0  # after which a page takes its connection for dead
ACCESS_SECONDS = 5.0  # between looks at whether the reader may still read
GONE = "event: gone\ndata: {}\n\n"
PING = "event: ping\ndata: {}\n\n"
Check = Callable[[], bool]


@declares("chat")
async def reply_events(request: Request, message_id: int) -> StreamingHttpResponse:
    """The reply: `piece`s numbered from 1, then `done`. A reader that was cut off goes on behind the number it has, in
    Last-Event-ID or `?after=`."""

    def check() -> None:
        message = selectors.message_of_user(request.user, message_id)
        allow(reader(request), "chat", message.conversation.project)

    await sync_to_async(check)()
    last_number = parse_int(request.headers.get("Last-Event-ID") or request.GET.get("after", "0")) or 0
    return event_stream(reply_pieces(message_id, last_number, permitted(check)))


@declares("chat")
async def news(request: Request, conversation_id: UUID) -> StreamingHttpResponse:
    """That the conversation is another than the page shows, whose `version` is in the query."""

    def check() -> None:
        conversation = selectors.conversation_of_user(request.user, conversation_id)
        allow(reader(request), "chat", conversation.project)

    await sync_to_async(check)()
    version = request.GET.get("version", "")
    return event_stream(changes(conversation_id, version, permitted(check)))


def event_stream(stream: AsyncIterator[str]) -> StreamingHttpResponse:
    response = StreamingHttpResponse(stream, content_type="text/event-stream")
    response["Cache-Control"] = "no-store, no-transform"
    response["X-Accel-Buffering"] = "no"
    return response


def reader(request: Request) -> User:
    """The person as the database has them now, if they are still signed in."""
    key = request.session.session_key
    if not key or not request.session.exists(key):
        raise TutelageError("Your session has ended. Sign in again.")
    return User.objects.get(pk=request.user.pk)


def permitted(check: Callable[[], None]) -> Check:
    """`check` as a question, asked at most every ACCESS_SECONDS."""
    checked_at = time.monotonic()

    def still() -> bool:
        nonlocal checked_at
        if time.monotonic() - checked_at < ACCESS_SECONDS:
            return True
        checked_at = time.monotonic()
        try:
            check()
        except (TutelageError, User.DoesNotExist):
            return False
        return True

    return still


async def reply_pieces(message_id: int, last_number: int, still: Check) -> AsyncGenerator[str]:
    async with listening(message_id) as wait:
        async for text in followed(message_id, last_number, wait, still):
            yield text


async def followed(message_id: int, last_number: int, wait: Wait, still: Check) -> AsyncGenerator[str]:
    spoke = 0.0
    while True:
        new, going_on, allowed = await in_database(look, message_id, last_number, still)
        if not allowed:
            yield GONE
            return
        for number, text in new:
            yield f"id: {number}\nevent: piece\ndata: {json.dumps(text)}\n\n"
            last_number = number
        if not going_on:
            yield "event: done\ndata: {}\n\n"
            return
        if new or time.monotonic() - spoke >= PING_SECONDS:
            spoke = time.monotonic()
            if not new:
                yield PING
        await wait(POLL_SECONDS)


def look(message_id: int, last_number: int, still: Check) -> tuple[list[tuple[int, str]], bool, bool]:
    """What is new, whether more comes, and whether the reader may have it. A writer that is gone is noticed here."""
    if not still():
        return [], False, False
    new, going_on = selectors.events_after(message_id, last_number)
    if going_on and not new and replies.interrupt_stale(pk=message_id):
        new, going_on = selectors.events_after(message_id, last_number)
    return new, going_on, True


async def changes(conversation_id: UUID, version: str, still: Check) -> AsyncGenerator[str]:
    spoke = 0.0
    async with listening(conversation_id) as wait:
        while True:
            now, allowed = await in_database(conversation_state, conversation_id, still)
            if not allowed:
                yield GONE
                return
            if now != version:
                version, spoke = now, time.monotonic()
                yield f"event: changed\ndata: {json.dumps(now)}\n\n"
            elif time.monotonic() - spoke >= PING_SECONDS:
                spoke = time.monotonic()
                yield PING
            await wait(PING_SECONDS)


def conversation_state(conversation_id: UUID, still: Check) -> tuple[str, bool]:
    return (selectors.version_of(conversation_id), True) if still() else ("", False)


async def in_database(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function that uses the database, and give its connection back: a stream may stay open for an hour."""

    def called() -> Any:
        try:
            return function(*args)
        finally:
            close_old_connections()

    return await sync_to_async(called)()
