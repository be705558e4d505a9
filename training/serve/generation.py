"""One HTTP request's replies on their way from the scheduler's thread to the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest

from training.contract import TrainingError
from training.engine import Completion, Delta, Engine, EngineRequest
from training.serve.metrics import Metrics
from training.serve.protocol import APIError
from training.serve.replies import LAST_EVENT, ReplyShape, sse_event
from training.serve.scheduler import Scheduler

PING_SECONDS = 10.0  # a stream that has nothing to say says so this often, so that it is not taken for dead
WAITING = b": waiting\n\n"
News = tuple[int, Delta | Completion | TrainingError]


class Generation:
    """Replies to `requests`, of prompts of `lengths` tokens; cancelled when the client leaves."""

    def __init__(
        self,
        scheduler: Scheduler,
        metrics: Metrics,
        engine: Engine,
        requests: Sequence[EngineRequest],
        shape: ReplyShape,
        lengths: Sequence[int],
        user: str = "",
    ) -> None:
        self._scheduler = scheduler
        self._metrics = metrics
        self._engine = engine
        self._requests = requests
        self._shape = shape
        self._lengths = lengths
        self._user = user
        self._news: asyncio.Queue[News] = asyncio.Queue()
        self._open = set(requests)
        self._began = time.monotonic()
        self._met = False

    async def whole(self, http: HTTPRequest) -> dict[str, Any]:
        """The finished answer. Raises APIError, and ClientDisconnect where nobody waits for it anymore."""
        self._start(stream=False)
        leaving = asyncio.ensure_future(_left(http))
        try:
            finished: dict[int, Completion] = {}
            while len(finished) < len(self._requests):
                index, news = await self._next(leaving)
                if isinstance(news, TrainingError):
                    raise APIError.of(news, self._shape.parameter) from news
                if isinstance(news, Completion):
                    finished[index] = news
            self._count([len(reply.tokens) for reply in finished.values()])
            return self._shape.whole(self._lengths, [finished[i] for i in range(len(finished))])
        finally:
            leaving.cancel()
            self._cancel()

    async def events(self, *, with_usage: bool) -> AsyncIterator[bytes]:
        """The answer as server-sent events. When the client leaves, this is closed, and generation with it."""
        self._start(stream=True)
        try:
            if self._shape.chat:
                for index in range(len(self._requests)):
                    yield sse_event(self._shape.opening(index))
            written: list[int] = []
            while len(written) < len(self._requests):
                if (update := await self._soon()) is None:
                    yield WAITING
                    continue
                index, news = update
                if isinstance(news, TrainingError):
                    yield sse_event(APIError.of(news, self._shape.parameter).body)
                    break
                if isinstance(news, Completion):
                    written.append(len(news.tokens))
                    yield sse_event(self._shape.chunk(index, "", [], [], [], news.finish))
                elif news.text or self._shape.logprobs:
                    yield sse_event(self._shape.chunk(index, news.text, news.tokens, news.logprobs, news.top))
            else:
                self._count(written)
                if with_usage:
                    yield sse_event(self._shape.closing(self._lengths, written))
            yield LAST_EVENT
        finally:
            self._cancel()

    async def _soon(self) -> News | None:
        """The next news; None if there is none for a while, as when the request waits for a slot."""
        if not self._news.empty():
            return self._news.get_nowait()
        try:
            async with asyncio.timeout(PING_SECONDS):
                return await self._news.get()
        except TimeoutError:
            return None

    def _start(self, *, stream: bool) -> None:
        for index, request in enumerate(self._requests):
            self._scheduler.submit(
                self._engine,
                request,
                on_end=partial(self._take, index),
                on_delta=partial(self._take, index) if stream else None,
                user=self._user,
            )

    def _take(self, index: int, news: Delta | Completion | TrainingError) -> None:
        if isinstance(news, Delta):
            if not self._met:
                self._metrics.first_token.observe(time.monotonic() - self._began)
            self._met = True
        else:
            self._open.discard(self._requests[index])
        self._news.put_nowait((index, news))

    async def _next(self, leaving: asyncio.Future[None]) -> News:
        news = asyncio.ensure_future(self._news.get())
        waited: set[asyncio.Future[Any]] = {news, leaving}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if news.done():
            return news.result()
        news.cancel()
        raise ClientDisconnect

    def _count(self, written: Sequence[int]) -> None:
        self._metrics.reply.observe(time.monotonic() - self._began)
        self._metrics.prompt_tokens.labels(self._shape.model).inc(sum(self._lengths))
        self._metrics.generated_tokens.labels(self._shape.model).inc(sum(written))

    def _cancel(self) -> None:
        for request in self._open:
            self._scheduler.cancel(self._engine, request)


async def _left(http: HTTPRequest) -> None:
    """Returns when the client has closed the connection."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
