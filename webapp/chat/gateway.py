"""The one module that asks the model server for replies, streamed or whole. vLLM answers the same requests.

Bodies and answers are those of the OpenAI API's /v1/chat/completions and /v1/completions. Whatever goes wrong comes as
one of this site's errors, with the sentence that a person needs; addresses and the server's own words for a failure go
into the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import httpx
from django.conf import settings

from webapp.chat.collected import Collected
from webapp.errors import BadInput, TooMany, TutelageError, Unavailable
from webapp.registry.model_server import Fault, fault, tls

log = logging.getLogger(__name__)

CHAT: Final = "/v1/chat/completions"
TEXT: Final = "/v1/completions"
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 120.0  # after which a server is taken for dead; ours says something every ten
DOWN: Final = (
    "The model server does not answer, so nobody can reply. Try again in a minute; if it stays so, tell whoever runs "
    "this installation."
)
CUT_OFF: Final = "The reply was cut off before its end. Try again."
FAILED: Final = (
    "The model server failed over this reply. Try again; if it stays so, tell whoever runs this installation: its log "
    "has the details."
)
UNAVAILABLE: Final = (
    "The model is not available right now. Try again in a minute. If this goes on, tell a manager of the project, who "
    "can see why under Models, Deployments."
)
REFUSED: Final = "The model cannot answer this message as it is. Change it, and try again."
FOR_PEOPLE: Final = frozenset({"prompt_too_long", "message_too_long", "busy", "cut_off", "unknown_model"})
TOO_LONG: Final = ("context", "too long", "longer than", "maximum model length")


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
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            chunk = json.loads(data)
            if "error" in chunk:
                raise refusal(500, fault(httpx.Response(500, json=chunk)), body)
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
    headers = {"Authorization": f"Bearer {settings.MODEL_SERVER_TOKEN}"} if settings.MODEL_SERVER_TOKEN else {}
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    url = settings.MODEL_SERVER_URL.rstrip("/") + path
    try:
        async with (
            httpx.AsyncClient(timeout=timeout, headers=headers, transport=transport, verify=tls()) as client,
            client.stream("POST", url, json=dict(body)) as response,
        ):
            if response.is_error:
                await response.aread()
                raise refusal(response.status_code, fault(response), body)
            yield response
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unavailable(DOWN, code="model_server_unavailable", url=url, error=repr(error)) from error
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise Unavailable(CUT_OFF, code="cut_off", error=repr(error)) from error


def refusal(status: int, fault: Fault, body: Mapping[str, Any]) -> TutelageError:
    """What the server's answer means to the person; `said`, `param` and `reason` of its data are the server's own."""
    data = {"said": fault.message, "param": fault.param, "reason": fault.code}
    if status == 404:
        return Unavailable(
            f"The model {body.get('model')} is not ready yet. Try again in a moment.", code="unknown_model", **data
        )
    if status in {400, 413, 422}:
        if fault.code == "context_length_exceeded" or any(hint in fault.message.lower() for hint in TOO_LONG):
            return BadInput(
                "This conversation is longer than the model can read. Shorten your message, or start a new "
                "conversation.",
                code="prompt_too_long",
                **data,
            )
        return BadInput(f"The model server cannot take this: {fault.message}", code="refused", **data)
    if status in {401, 403}:
        log.error("the model server wants another token than MODEL_SERVER_TOKEN: %s", fault.message)
        return Unavailable(DOWN, code="model_server_token", **data)
    if status == 429:
        return TooMany("The model server has more to do than it can take. Try again in a moment.", code="busy", **data)
    log.error("the model server failed over a reply of %s: %s", body.get("model"), fault.message)
    return Unavailable(FAILED, code="model_server_failed", status=status, **data)


def for_people(error: TutelageError) -> str:
    """The sentence for somebody who chats or asks by API. Paths, addresses and the server's words are for those who run
    it: they have them in the log and on the Deployments page."""
    if error.error_code in FOR_PEOPLE:
        return error.message
    return REFUSED if isinstance(error, BadInput) else UNAVAILABLE
