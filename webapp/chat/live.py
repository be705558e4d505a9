"""Word that something happened to a reply, from the process that writes it to those that show it.

It goes through Redis and carries no facts: whoever hears it reads the database, and reads it once a second anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache

import redis
import redis.asyncio
from django.conf import settings

log = logging.getLogger(__name__)
Wait = Callable[[float], Awaitable[None]]


def channel(message_id: int) -> str:
    return f"chat:{message_id}"


@cache
def client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)


def announce(message_id: int) -> None:
    try:
        client().publish(channel(message_id), b"")
    except redis.RedisError as error:
        log.warning("live replies fall back to polling, Redis does not answer: %s", error)


@asynccontextmanager
async def listening(message_id: int) -> AsyncIterator[Wait]:
    """A function that waits for the next word about the message, or for so many seconds where none comes."""
    connection = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1)
    subscription = connection.pubsub(ignore_subscribe_messages=True)
    heard = True
    try:
        await subscription.subscribe(channel(message_id))
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
