"""The endpoints under /v1/. They run on the event loop; what they need of the database they fetch in one short hop, so
no connection is held while a reply is written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse

from training.contract import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    RequestRefused,
    parse_request,
    read_request,
)
from webapp.accounts.access import declare
from webapp.api.openai import limits
from webapp.api.openai.answers import chunk_events
from webapp.api.openai.targets import (
    AnsweringModel,
    deployed,
    entry,
    find_target,
    model_entry,
    stays_with,
    token_user,
    upstream_body,
)
from webapp.errors import TutelageError, Unavailable
from webapp.model_server import completions as model_server
from webapp.registry.models import ModelVersion
from webapp.registry.services import ensure_served

log = logging.getLogger(__name__)

DATABASE_HOPS: Final = 8  # at once in one process; more wait, so that pages find a connection
loaders = ThreadPoolExecutor(4, thread_name_prefix="loads")  # a load takes seconds to minutes
T = TypeVar("T")
View = TypeVar("View", bound=Callable[..., Any])
hops: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
loads: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, asyncio.Lock]] = WeakKeyDictionary()


def endpoint(*methods: str) -> Callable[[View], View]:
    """An endpoint of this API: what it takes, and that it needs a token."""

    def decorate(view: View) -> View:
        view.methods = methods  # type: ignore[attr-defined]
        view.csrf_exempt = True  # type: ignore[attr-defined]  # no cookie counts here
        return declare(view, "token")

    return decorate


async def in_database(function: Callable[..., T], *args: Any) -> T:
    """Call a function that uses the database, and give its connection back."""

    def called() -> T:
        try:
            return function(*args)
        finally:
            if not connection.in_atomic_block:
                connection.close()

    async with hops.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(DATABASE_HOPS)):
        return await sync_to_async(called)()


@endpoint("POST")
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    """POST /v1/chat/completions, streamed or not."""
    return await generate(request, ChatRequest, model_server.CHAT)


@endpoint("POST")
async def completions(request: HttpRequest) -> HttpResponseBase:
    """POST /v1/completions, streamed or not: text goes on from a prompt, without chat template and system prompt."""
    return await generate(request, CompletionRequest, model_server.TEXT)


@endpoint("GET", "HEAD")
async def models(request: HttpRequest) -> HttpResponseBase:
    """GET /v1/models: the projects in which something answers."""

    def listed() -> list[dict[str, Any]]:
        return [entry(row.project.slug, row.since, row.project.name) for row in deployed(token_user(request))]

    return JsonResponse({"object": "list", "data": await in_database(listed)})


@endpoint("GET", "HEAD")
async def model(request: HttpRequest, name: str) -> HttpResponseBase:
    """GET /v1/models/NAME."""
    return JsonResponse(await in_database(lambda: model_entry(token_user(request), name)))


async def generate(request: HttpRequest, kind: type[GenerationRequest], path: str) -> HttpResponseBase:
    """The model's answer. What goes wrong before the first chunk is an error, not a broken stream."""
    if "Authorization" not in request.headers:
        raise RequestRefused(
            "Give an API token as the key: make one on your profile page.", status=401, code="invalid_api_key"
        )
    generation = read_asked(request, kind)
    target = await in_database(target_of, request, generation)
    if isinstance(generation, RequestRefused):
        raise generation
    limits.check_size(generation.replies, "n" if generation.n > 1 else "prompt")
    body = {**upstream_body(generation, target), "stream_options": {"include_usage": True}}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(limits.counted_replies(target.person.pk, generation.replies))
        if not generation.stream:
            return JsonResponse(await loaded(target.model, lambda: model_server.complete(path, body)))
        chunks = model_server.stream(path, body)
        try:
            first_chunk = await anext(chunks)
        except Unavailable as error:
            await load_again(target.model, error)
            chunks = model_server.stream(path, body)
            first_chunk = await anext(chunks)
        written = closed_after(
            stack.pop_all(), chunk_events(first_chunk, chunks, with_usage=generation.stream_options.include_usage)
        )
        await anext(written)  # begun, so that it is also ended where the client has left already
        return StreamingHttpResponse(
            written, content_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )


def read_asked(request: HttpRequest, kind: type[GenerationRequest]) -> GenerationRequest | RequestRefused:
    """The request, or what is wrong with it, which only people with a token learn."""
    try:
        return read_request(parse_request(request.body), kind)
    except RequestRefused as refusal:
        return refusal


def target_of(request: HttpRequest, generation: GenerationRequest | RequestRefused) -> AnsweringModel:
    person = token_user(request)
    if isinstance(generation, RequestRefused):
        raise generation
    return find_target(person, generation.model, stays_with(person, generation))


async def loaded(model: ModelVersion, ask: Callable[[], Any]) -> Any:
    """What `ask` gives; where the model server has forgotten the model, it is loaded and asked again."""
    try:
        return await ask()
    except Unavailable as error:
        await load_again(model, error)
        return await ask()


async def load_again(model: ModelVersion, error: Unavailable) -> None:
    """Loads a model that the server does not know; raises `error` where that was not the matter.

    One request does it, those that come meanwhile wait for it.
    """
    if error.error_code != "unknown_model":
        raise error
    locks = loads.setdefault(asyncio.get_running_loop(), {})
    async with locks.setdefault(model.pk, asyncio.Lock()):
        try:
            await asyncio.get_running_loop().run_in_executor(loaders, ensure_served, model)
        except TutelageError as failed:
            log.error("%s cannot be served: %s %s", model.served_name, failed.message, failed.data)
            raise


async def closed_after(stack: AsyncExitStack, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The parts; what `stack` holds is let go when they end, or when the client leaves."""
    async with stack, aclosing(chunks):
        yield b""
        async for chunk in chunks:
            yield chunk
