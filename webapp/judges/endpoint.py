"""One question to an OpenAI-compatible endpoint, and what its refusals mean."""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

import httpx
from django.conf import settings

from webapp.encryption import decrypt
from webapp.judges.guarding import GuardedTransport, NotPublic, checked_address
from webapp.judges.models import Judge
from webapp.model_server.connection import CONNECT_SECONDS, client_options
from webapp.model_server.refusals import read_fault
from webapp.registry.services import ensure_served

PURPOSE: Final = "judge"
MAX_ANSWER_BYTES: Final = 1 << 20
MAX_PAUSE: Final = 3600.0  # seconds; a server that asks for more is asked again after this
TOO_LONG: Final = ("context length", "context_length", "too long", "longer than", "maximum context", "maximum model")


class Pause(Exception):
    """The endpoint cannot answer now. `seconds`: how long it asks to wait; None where it does not say."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.message, self.seconds = message, seconds


class Refused(Exception):
    """The endpoint will not answer any question as things are: wrong key, unknown model, no credit."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Reply:
    """An endpoint's answer. `text` is empty with a `problem` where this question cannot be answered."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    problem: str = ""


@dataclass
class Endpoint:
    """Asks a judge's model. Threads share one; nothing here touches the database."""

    client: httpx.Client
    model: str
    max_tokens: int
    timeout: float
    key: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, judge: Judge) -> Self:
        """Raises the site's errors: a model of ours that cannot be served, a key that cannot be read, an address that
        may not be asked."""
        timeout = httpx.Timeout(judge.timeout, connect=CONNECT_SECONDS)
        if judge.own_model is not None:
            model = ensure_served(judge.own_model)
            served = {**client_options(judge.timeout), "timeout": timeout}
            served["base_url"] = f"{served['base_url']}/v1"
            client = httpx.Client(**served, trust_env=False)
            return cls(client, model, judge.max_tokens, judge.timeout, key=settings.MODEL_SERVER_TOKEN)
        key = decrypt(judge.encrypted_key, purpose=PURPOSE)
        client = httpx.Client(
            base_url=checked_address(judge.address),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            transport=GuardedTransport(judge.parallel),
            trust_env=False,
        )
        return cls(client, judge.model, judge.max_tokens, judge.timeout, key=key)

    def __post_init__(self) -> None:
        self.options = self.options or {"temperature": 0, "max_tokens": self.max_tokens}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, messages: list[dict[str, str]]) -> Reply:
        """Raises Pause or Refused."""
        for _ in range(3):
            start, options = time.monotonic(), self.options
            status, headers, content = self.post({"model": self.model, "messages": messages, **options})
            if status < 400:
                return self.read(content, time.monotonic() - start)
            fault = self.without_key(read_fault(httpx.Response(status, content=content)).message)[:300]
            if status in (400, 422) and self.adapt(fault, options):
                continue
            if status in (400, 413, 422) and any(hint in fault.lower() for hint in TOO_LONG):
                return Reply("", problem=f"The endpoint cannot read this much: {fault}")
            raise self.refusal(status, headers, fault)
        raise Refused(f"The endpoint takes none of the usual parameters: {fault}")

    def post(self, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body, which must come whole within the time limit. Raises Pause or Refused."""
        ends, content = time.monotonic() + self.timeout, bytearray()
        try:
            with self.client.stream("POST", "/chat/completions", json=body) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise Refused("The endpoint's answer is larger than an answer of a judge can be.")
                    if time.monotonic() > ends:
                        raise Pause(f"The endpoint took longer than {self.timeout:.0f} s for one answer.")
                return response.status_code, response.headers, bytes(content)
        except httpx.ConnectError as error:
            if isinstance(error.__cause__, NotPublic):
                raise Refused(str(error.__cause__)) from error
            raise Pause(f"The endpoint cannot be reached: {error}.") from error
        except httpx.TimeoutException as error:
            raise Pause(f"The endpoint took longer than {self.timeout:.0f} s for one answer.") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Pause(f"The connection to the endpoint broke: {self.without_key(str(error))}.") from error

    def read(self, content: bytes, seconds: float) -> Reply:
        """Raises Pause for a body that is no answer: a proxy's page, or one that was cut off."""
        try:
            body = json.loads(content)
            text = body["choices"][0]["message"].get("content") or ""
            usage = body.get("usage") or {}
            tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise Pause("The endpoint answered with something that is no chat completion.") from error
        if not isinstance(text, str):
            text = ""
        return Reply(text, max(0, tokens[0]), max(0, tokens[1]), seconds)

    def adapt(self, said: str, used: dict[str, Any]) -> bool:
        """Leave out or rename a parameter that newer models refuse; whether there is something to try again."""
        options = dict(used)
        if "max_completion_tokens" in said and "max_tokens" in options:
            options["max_completion_tokens"] = options.pop("max_tokens")
        elif "temperature" in said and "temperature" in options:
            del options["temperature"]
        else:
            return self.options != used  # another thread found out meanwhile
        self.options = options
        return True

    def refusal(self, status: int, headers: httpx.Headers, said: str) -> Exception:
        if status == 429 and "quota" not in said.lower():
            return Pause(f"The endpoint limits the rate of requests: {said}", retry_after(headers))
        if status >= 500 or status in (408, 409, 425):
            return Pause(f"The endpoint failed ({status}): {said}", retry_after(headers))
        if status in (401, 403):
            return Refused(f"The endpoint rejects the key ({status}): {said}")
        if status == 404:
            return Refused(f"The endpoint has no model {self.model}, or no chat completions at this address: {said}")
        if 300 <= status < 400:
            return Refused("The endpoint redirects elsewhere. Give the address that it redirects to.")
        return Refused(f"The endpoint refuses the request ({status}): {said}")

    def without_key(self, text: str) -> str:
        return text.replace(self.key, "…") if self.key else text


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None without one that can be read."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), MAX_PAUSE) if seconds == seconds else None
