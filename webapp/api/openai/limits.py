"""How much one person may ask for at once: replies under way are counted in Redis, over all web processes.

A count lapses when the process that holds it is gone. Where Redis does not answer, each process counts for itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import redis
from django.conf import settings

from training.contract import RequestRefused
from webapp.chat.live import client

log = logging.getLogger(__name__)

MAX_REQUESTS: Final = 256  # under way in one web process
LEASE_SECONDS: Final = 60
TAKE: Final = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) + tonumber(ARGV[2]) > tonumber(ARGV[3]) then return 0 end
for i = 1, tonumber(ARGV[2]) do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), ARGV[1] .. ':' .. i) end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""
RENEW: Final = """
local now = tonumber(redis.call('TIME')[1])
for i = 1, tonumber(ARGV[2]) do redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[3]), ARGV[1] .. ':' .. i) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""


class Under:
    """What is under way in this process."""

    def __init__(self) -> None:
        self.requests = 0
        self.replies: Counter[int] = Counter()  # by person; the limit where Redis does not answer
        self._lock = threading.Lock()

    def take(self, person: int, replies: int, limit: int) -> bool:
        with self._lock:
            free = self.replies[person] + replies <= limit
            if free:
                self.replies[person] += replies
            return free

    def give(self, person: int, replies: int) -> None:
        with self._lock:
            self.replies[person] -= replies
            if not self.replies[person]:
                del self.replies[person]


under = Under()


def check_size(replies: int, param: str) -> None:
    """Raises RequestRefused if one request asks for more replies than a person may have at once."""
    limit = settings.API_REPLIES_AT_ONCE
    if replies > limit:
        raise RequestRefused(f"{param}: ask for at most {limit} replies at once here, not {replies}.", param=param)


@asynccontextmanager
async def counted_replies(person: int, replies: int) -> AsyncIterator[None]:
    """Counts the replies while the block lasts. Raises RequestRefused (429) where the person has too many under way."""
    limit = settings.API_REPLIES_AT_ONCE
    if under.requests >= MAX_REQUESTS:
        raise RequestRefused("The site is busy. Try again in a moment.", status=429,
                             code="rate_limit_exceeded")  # fmt: skip
    lease = ReplyCount(person, replies)
    under.requests += 1
    try:
        if not await asyncio.to_thread(lease.take, limit):
            raise RequestRefused(
                f"You may have {limit} replies under way at once. Wait for one to end.", status=429,
                code="rate_limit_exceeded",
            )  # fmt: skip
        renewal = asyncio.create_task(lease.keep())
        try:
            yield
        finally:
            renewal.cancel()
            give_back(lease)
    finally:
        under.requests -= 1


class ReplyCount:
    """The count of one request's replies; blocking calls of Redis, for a thread."""

    def __init__(self, person: int, replies: int) -> None:
        self.person = person
        self.replies = replies
        self._key = f"api:replies:{person}"
        self._name = uuid.uuid4().hex
        self._here = False

    def take(self, limit: int) -> bool:
        try:
            return bool(client().eval(TAKE, 1, self._key, self._name, self.replies, limit, LEASE_SECONDS))
        except redis.RedisError as error:
            log.warning("replies are counted in this process alone, Redis does not answer: %s", error)
            self._here = under.take(self.person, self.replies, limit)
            return self._here

    def renew(self) -> None:
        try:
            client().eval(RENEW, 1, self._key, self._name, self.replies, LEASE_SECONDS)
        except redis.RedisError as error:
            log.warning("a count of replies is not renewed, Redis does not answer: %s", error)

    def give(self) -> None:
        if self._here:
            under.give(self.person, self.replies)
            return
        try:
            client().zrem(self._key, *(f"{self._name}:{i}" for i in range(1, self.replies + 1)))
        except redis.RedisError as error:
            log.warning("a count of replies lapses by itself, Redis does not answer: %s", error)

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            if not self._here:
                await asyncio.to_thread(self.renew)


def give_back(lease: ReplyCount) -> None:
    """In a thread, which ends also where the request was cancelled."""
    asyncio.get_running_loop().run_in_executor(None, lease.give)
