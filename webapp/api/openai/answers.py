"""Answers and errors in the shapes that OpenAI's clients read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Final

from django.http import JsonResponse

from training.contract import RequestRefused, openai_error_body
from webapp.errors import BadInput, Conflict, NotFound, TooMany, TutelageError
from webapp.model_server.refusals import for_people

RETRY_SECONDS: Final = 5
PING_SECONDS: Final = 15.0
PING: Final = b": waiting\n\n"
DONE: Final = b"data: [DONE]\n\n"
CODES: Final = {
    "model_server_unavailable": "model_server_unavailable", "model_server_token": "model_server_unavailable",
    "cut_off": "reply_cut_off", "unknown_model": "model_loading", "model_server_failed": "model_server_failed",
}  # fmt: skip


def refused(error: TutelageError) -> RequestRefused:
    """What the caller learns about an error of the site."""
    upstream_message, param, reason = (str(error.data.get(name) or "") for name in ("said", "param", "reason"))
    if isinstance(error, BadInput):
        if error.error_code == "prompt_too_long":
            return RequestRefused(
                upstream_message or error.message, param=param or "messages", code="context_length_exceeded"
            )
        return RequestRefused(upstream_message or error.message, param=param or None, code=reason or "invalid_value")
    if isinstance(error, NotFound):
        return RequestRefused(error.message, status=404, param="model", code="model_not_found")
    if isinstance(error, TooMany):
        return RequestRefused(error.message, status=429, code="rate_limit_exceeded")
    if isinstance(error, Conflict) or error.status >= 500:
        message = for_people(error)
        return RequestRefused(message, status=503, code=CODES.get(error.error_code, "model_unavailable"))
    return RequestRefused(error.message, status=error.status, code=error.error_code)


def failure(refusal: RequestRefused) -> JsonResponse:
    """The refusal as a response; one that may be repeated says when."""
    body = openai_error_body(refusal.message, status=refusal.status, param=refusal.param, code=refusal.code)
    response = JsonResponse(body, status=refusal.status)
    if refusal.status in (429, 503):
        response["Retry-After"] = str(RETRY_SECONDS)
    if refusal.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


def chunk_event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


async def chunk_events(
    first_chunk: dict[str, Any], later_chunks: AsyncGenerator[dict[str, Any]], *, with_usage: bool
) -> AsyncGenerator[bytes]:
    """Server-sent events of a streamed answer. The model server is always asked for the usage; the chunk that has it is
    left out where the caller did not ask."""
    chunks = pinged(later_chunks)
    try:
        yield chunk_event(first_chunk)
        async for chunk in chunks:
            if chunk is None:
                yield PING
            elif with_usage or chunk.get("choices"):
                yield chunk_event(chunk)
    except TutelageError as error:
        refusal = refused(error)
        yield chunk_event(
            openai_error_body(refusal.message, status=refusal.status, param=refusal.param, code=refusal.code)
        )
        return
    finally:
        await chunks.aclose()
    yield DONE


async def pinged(chunks: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[dict[str, Any] | None]:
    """The chunks, and None whenever none has come for a while, so that no proxy takes the stream for dead."""
    coming: asyncio.Future[dict[str, Any]] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(chunks))
            await asyncio.wait([coming], timeout=PING_SECONDS)
            if not coming.done():
                yield None
                continue
            try:
                chunk = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield chunk
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await chunks.aclose()
