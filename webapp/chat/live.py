"""News of a reply or a conversation, from the process that changes it to those that show it.

It goes through Redis and carries no facts: whoever hears it reads the database, and reads it once a second anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from uuid import UUID

import redis
import redis.asyncio
from django.conf import settings

log = logging.getLogger(__name__)
Wait = Callable[[float], Awaitable[None]]


def channel(key: int | UUID) -> str:
    """Of a message by its number, of a conversation by its id."""
    return f"chat:{key}"


@cache
def client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)


def announce(message_id: int) -> None:
    publish_key(message_id)


def announce_conversation(conversation_id: UUID) -> None:
    publish_key(conversation_id)


def publish_key(key: int | UUID) -> None:
    try:
        client().publish(channel(key), b"")
    except redis.RedisError as error:
        log.warning("live replies fall back to polling, Redis does not answer: %s", error)


@asynccontextmanager
async def listening(key: int | UUID) -> AsyncIterator[Wait]:
    """A function that waits for the next news of the message or conversation, or for so many seconds if none comes."""
    connection = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1)
    subscription = connection.pubsub(ignore_subscribe_messages=True)
    heard = True
    try:
        await subscription.subscribe(channel(key))
    except redis.RedisError as error:
        log.warning("live replies fall back to polling, Redis does not answer: %s", error)
        heard = False

    async def wait(seconds: float) -> None:
        if not heard:
            await asyncio.sleep(seconds)
            return
        try:
            await subscription.get_message(timeout=seconds)
        except redis.RedisError:
            await asyncio.sleep(seconds)

    try:
        yield wait
    finally:
        await subscription.aclose()
        await connection.aclose()
