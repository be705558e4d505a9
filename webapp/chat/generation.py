"""Writes replies, whoever watches: one event loop in a thread of the web process, a coroutine for each reply.

Each piece is in the database before any browser sees it, so a reply outlives the connection that asked for it. Pieces
that arrive while one is being saved are saved together. If this process dies, the heartbeat stops and the reply is
marked as interrupted by whoever notices first: a reader of the page, or the scheduler.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from django.db import close_old_connections

from webapp.chat import fitting
from webapp.chat.services import replies
from webapp.errors import BadInput, TutelageError
from webapp.model_server.completions import count_tokens, delta, stream_chat
from webapp.model_server.refusals import for_people
from webapp.registry.models import ModelVersion
from webapp.registry.services import ensure_served

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 4.0
BROKEN: Final = "Something went wrong while this reply was written. Try again."
T = TypeVar("T")
Chat = Callable[[Mapping[str, Any]], AsyncIterator[dict[str, Any]]]
Serve = Callable[[ModelVersion], str]

threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="replies")
starting = threading.Lock()
loop: asyncio.AbstractEventLoop | None = None
under_way: set[Future[None]] = set()


def start_reply(message_id: int) -> Future[None]:
    """Have the reply written; returns at once."""
    future = asyncio.run_coroutine_threadsafe(write_reply(message_id), the_loop())
    under_way.add(future)
    future.add_done_callback(under_way.discard)
    return future


def the_loop() -> asyncio.AbstractEventLoop:
    global loop  # noqa: PLW0603 (one loop a process, made when it is first needed)
    with starting:
        if loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="replies", daemon=True).start()
        return loop


async def run_in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function that uses the database, and give its connection back."""

    def called() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return await asyncio.get_running_loop().run_in_executor(threads, called)


async def write_reply(
    message_id: int,
    *,
    chat: Chat = stream_chat,
    serve: Serve = ensure_served,
    count: fitting.Count = count_tokens,
    heartbeat: float | None = None,
) -> None:
    """Write one pending reply to its end. `chat`, `serve` and `count` stand for the model server."""
    job = await run_in_thread(replies.claim, message_id=message_id)
    if job is None:
        return
    writer = asyncio.create_task(converse(message_id, job, chat, serve, count))
    pulse = asyncio.create_task(keep_alive(job, writer, heartbeat or HEARTBEAT_SECONDS))
    try:
        await writer
    except asyncio.CancelledError:
        log.info("reply %s: stopped", message_id)
    except TutelageError as error:
        log.warning("reply %s: %s: %s %s", message_id, error.error_code, error.message, error.data)
        await run_in_thread(replies.note_problem, model=job.model, error=error)
        sentence, refused = for_people(error), isinstance(error, BadInput)
        await run_in_thread(replies.fail_reply, message_id=message_id, error=sentence, refused=refused)
    except Exception:
        log.exception("reply %s failed", message_id)
        await run_in_thread(replies.fail_reply, message_id=message_id, error=BROKEN)
    finally:
        pulse.cancel()


async def converse(message_id: int, job: replies.ReplyJob, chat: Chat, serve: Serve, count: fitting.Count) -> None:
    """Ask the model, and keep what it says as it says it. Older exchanges drop where the model cannot read them all."""
    name = await run_in_thread(serve, job.model)
    turns, limit = job.body["messages"], job.body["max_tokens"]
    start: int | None = await fitting.first_turn_that_fits(
        turns, model=name, context=job.model.context, max_tokens=limit, count=count
    )
    while start is not None:
        await run_in_thread(
            replies.note_seen_from, message_id=message_id, first_id=job.turn_ids[start] if start else None
        )
        body = {**job.body, "model": name, "messages": fitting.turns_from(turns, start)}
        try:
            return await take_down(message_id, chat(body), limit)
        except BadInput as error:
            if error.error_code != "prompt_too_long":
                raise
        start = fitting.later_start(turns, start)
    raise fitting.message_too_long()


async def take_down(message_id: int, chunks: AsyncIterator[dict[str, Any]], limit: int) -> None:
    """Save the pieces of one answer until its end, or until nobody wants it anymore."""
    chunk_queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    reader = asyncio.create_task(queue_chunks(chunks, chunk_queue, limit))
    try:
        reason = ""
        while not reason:
            text, reason = await waiting(chunk_queue)
            if text and not await run_in_thread(replies.append, message_id=message_id, text=text):
                return
        await reader
        await run_in_thread(replies.finish_reply, message_id=message_id, reason=reason)
    finally:
        reader.cancel()


async def queue_chunks(
    chunks: AsyncIterator[dict[str, Any]], chunk_queue: asyncio.Queue[tuple[str, str]], limit: int
) -> None:
    """Put each piece of text into the queue; at the end, or when it breaks, a piece with the reason."""
    reason, written = "error", None
    try:
        async for chunk in chunks:
            text, ended = delta(chunk)
            reason = ended or reason
            written = fitting.tokens_written(chunk) or written
            if text:
                chunk_queue.put_nowait((text, ""))
        reason = "stop" if reason == "error" else fitting.reason_of(reason, written, limit)
    finally:
        chunk_queue.put_nowait(("", reason))


async def waiting(chunk_queue: asyncio.Queue[tuple[str, str]]) -> tuple[str, str]:
    """All that the queue holds, as one piece; waits until there is something."""
    text, reason = await chunk_queue.get()
    while not chunk_queue.empty():
        next_text, reason = chunk_queue.get_nowait()
        text += next_text
    return text, reason


async def keep_alive(job: replies.ReplyJob, writer: asyncio.Task[None], seconds: float) -> None:
    """Say that the writer lives, and end it when the reply is not its to write anymore."""
    while True:
        await asyncio.sleep(seconds)
        if not await run_in_thread(replies.beat, job):
            writer.cancel()
            return
