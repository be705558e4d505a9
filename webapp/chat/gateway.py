"""The one module that asks the model server for replies, streamed or whole. vLLM answers the same requests.

Bodies and answers are those of the OpenAI API's /v1/chat/completions. Whatever goes wrong comes as one of this site's
errors, with the sentence that a person needs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from ssl import SSLContext, create_default_context
from typing import Any, Final

import httpx
from django.conf import settings

from webapp.errors import BadInput, TooMany, TutelageError, Unavailable
from webapp.registry.model_server import words

COMPLETIONS: Final = "/v1/chat/completions"
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 120.0  # a server that says nothing for so long is taken for dead
DOWN: Final = (
    "The model server does not answer, so nobody can reply. Try again in a minute; if it stays so, tell whoever runs "
    "this installation."
)
TOO_LONG: Final = ("context", "too long", "longer than", "maximum model length")


def chat_body(
    *, model: str, messages: Sequence[Mapping[str, str]], temperature: float, top_p: float, max_tokens: int
) -> dict[str, Any]:
    """The request that asks `model` for the next assistant turn."""
    return {
        "model": model,
        "messages": list(messages),
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
    }


async def stream_chat(
    body: Mapping[str, Any], *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed reply, each as the server sent it (`chat.completion.chunk`).

    Ends when the server says [DONE]. Raises BadInput (prompt too long, wrong parameter), TooMany, or Unavailable (no
    server, unknown model, or a stream that broke off before its end: code `cut_off`).
    """
    async with asking({**body, "stream": True}, transport) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            chunk = json.loads(data)
            if "error" in chunk:
                raise refusal(500, str(words(httpx.Response(500, json=chunk))), body)
            yield chunk
    raise Unavailable("The model server broke off in the middle of the reply. Try again.", code="cut_off")


async def complete_chat(
    body: Mapping[str, Any], *, transport: httpx.AsyncBaseTransport | None = None
) -> dict[str, Any]:
    """The whole reply at once (`chat.completion`). Raises as `stream_chat` does."""
    async with asking({**body, "stream": False}, transport) as response:
        answer: dict[str, Any] = json.loads(await response.aread())
        return answer


def delta(chunk: Mapping[str, Any]) -> tuple[str, str]:
    """A chunk's text, and why the reply ended ("" while it goes on)."""
    choice: dict[str, Any] = next(iter(chunk.get("choices") or ()), {})
    return (choice.get("delta") or {}).get("content") or "", choice.get("finish_reason") or ""


@cache
def tls() -> SSLContext:
    """Made once: it takes longer than a request to a server nearby."""
    return create_default_context()


@asynccontextmanager
async def asking(body: Mapping[str, Any], transport: httpx.AsyncBaseTransport | None) -> AsyncIterator[httpx.Response]:
    """POST the body; errors of the network and of the server become errors of the site."""
    headers = {"Authorization": f"Bearer {settings.MODEL_SERVER_TOKEN}"} if settings.MODEL_SERVER_TOKEN else {}
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    url = settings.MODEL_SERVER_URL.rstrip("/") + COMPLETIONS
    try:
        async with (
            httpx.AsyncClient(timeout=timeout, headers=headers, transport=transport, verify=tls()) as client,
            client.stream("POST", url, json=dict(body)) as response,
        ):
            if response.is_error:
                await response.aread()
                raise refusal(response.status_code, words(response), body)
            yield response
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unavailable(
            DOWN,
            code="model_server_unavailable",
            url=url,
            error=str(error),
        ) from error
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise Unavailable(
            "The model server broke off in the middle of the reply. Try again.", code="cut_off", error=repr(error)
        ) from error


def refusal(status: int, said: str, body: Mapping[str, Any]) -> TutelageError:
    """What the server's answer means to the person."""
    model = body.get("model")
    if status == 404:
        return Unavailable(
            f"The model server does not know the model {model}. It may still be loading: try again in a moment.",
            code="unknown_model",
            said=said,
        )
    if status in {400, 413, 422}:
        if any(hint in said.lower() for hint in TOO_LONG):
            return BadInput(
                "This conversation is longer than the model can read. Shorten your message, or start a new "
                "conversation.",
                code="prompt_too_long",
                said=said,
            )
        return BadInput(f"The model server cannot take this: {said}", code="refused")
    if status in {401, 403}:
        return Unavailable(
            "The model server wants another token than this site has. Whoever runs the installation sets it in "
            "MODEL_SERVER_TOKEN.",
            code="model_server_token",
        )
    if status == 429:
        return TooMany("The model server has more to do than it can take. Try again in a moment.", code="busy")
    return Unavailable(f"The model server failed: {said}", code="model_server_failed", status=status)
