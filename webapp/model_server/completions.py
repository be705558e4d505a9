"""Replies of the model server, streamed or whole, and how many tokens a conversation takes.

Bodies and answers are those of the OpenAI API's /v1/chat/completions and /v1/completions; counts, of vLLM's /tokenize.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, NamedTuple

import httpx
from httpx_sse import EventSource, SSEError

from webapp.errors import Unavailable
from webapp.model_server.collected import Collected
from webapp.model_server.connection import client_options
from webapp.model_server.refusals import CUT_OFF, read_fault, refusal, unreachable

log = logging.getLogger(__name__)

CHAT: Final = "/v1/chat/completions"
TEXT: Final = "/v1/completions"
TOKENIZE: Final = "/tokenize"
MAX_COUNTING_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 120.0  # after which a server is taken for dead; ours says something every ten


def person_key(person_id: int) -> str:
    """What the model server tells people apart by, to have them take turns."""
    return f"person-{person_id}"


def chat_body(
    *,
    model: str,
    messages: Sequence[Mapping[str, str]],
    temperature: float,
    top_p: float,
    max_tokens: int,
    user: str = "",
) -> dict[str, Any]:
    """The request that asks `model` for the next assistant turn, for the person with the key `user`."""
    body = {
        "model": model,
        "messages": list(messages),
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
    }
    return body | ({"user": user} if user else {})


async def stream_chat(
    body: Mapping[str, Any], *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """The chunks of a streamed reply; see `stream`."""
    async with aclosing(stream(CHAT, body, transport=transport)) as chunks:
        async for chunk in chunks:
            yield chunk


async def stream(
    path: str, body: Mapping[str, Any], *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """The chunks of a streamed answer, each as the server sent it.

    Ends when the server says [DONE]. Raises BadInput (prompt too long, wrong parameter), TooMany, or Unavailable (no
    server, unknown model, or a stream that broke off before its end: code `cut_off`).
    """
    async with asking(path, {**body, "stream": True}, transport) as response:
        async for event in EventSource(response).aiter_sse():
            if event.data == "[DONE]":
                return
            chunk = json.loads(event.data)
            if "error" in chunk:
                raise refusal(500, read_fault(httpx.Response(500, json=chunk)), str(body.get("model")))
            yield chunk
    raise Unavailable(CUT_OFF, code="cut_off")


async def complete(
    path: str, body: Mapping[str, Any], *, transport: httpx.AsyncBaseTransport | None = None
) -> dict[str, Any]:
    """The whole answer at once. It is asked for as a stream: a reply may take longer than a connection may be silent.
    Raises as `stream` does."""
    collected = Collected(chat=path == CHAT)
    options = {"stream_options": {"include_usage": True}}
    async with aclosing(stream(path, {**body, **options}, transport=transport)) as chunks:
        async for chunk in chunks:
            collected.add(chunk)
    return collected.answer()


def delta(chunk: Mapping[str, Any]) -> tuple[str, str]:
    """A chunk's text, and why the reply ended ("" while it goes on)."""
    choice: dict[str, Any] = next(iter(chunk.get("choices") or ()), {})
    return (choice.get("delta") or {}).get("content") or "", choice.get("finish_reason") or ""


@asynccontextmanager
async def asking(
    path: str, body: Mapping[str, Any], transport: httpx.AsyncBaseTransport | None
) -> AsyncIterator[httpx.Response]:
    """POST the body; errors of the network and of the server become errors of the site."""
    options = client_options(SILENCE_SECONDS)
    try:
        async with (
            httpx.AsyncClient(**options, transport=transport) as client,
            client.stream("POST", path, json=dict(body)) as response,
        ):
            if response.is_error:
                await response.aread()
                raise refusal(response.status_code, read_fault(response), str(body.get("model")))
            yield response
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise unreachable(options["base_url"], error) from error
    except (httpx.HTTPError, SSEError, json.JSONDecodeError) as error:
        raise Unavailable(CUT_OFF, code="cut_off", error=repr(error)) from error


class Size(NamedTuple):
    """Of a conversation, in tokens."""

    tokens: int
    limit: int  # what the model can read and write together


async def count_tokens(
    model: str, messages: Sequence[Mapping[str, str]], *, transport: httpx.AsyncBaseTransport | None = None
) -> Size | None:
    """How long the conversation is for the model, with the opening of a reply; None if the server does not say."""
    body = {"model": model, "messages": list(messages), "add_generation_prompt": True}
    try:
        async with httpx.AsyncClient(**client_options(MAX_COUNTING_SECONDS), transport=transport) as client:
            answer = await client.post(TOKENIZE, json=body)
        if answer.is_error:
            return None
        counted = answer.json()
        return Size(int(counted["count"]), int(counted["max_model_len"]))
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        log.info("the model server does not count tokens: %r", error)
        return None
