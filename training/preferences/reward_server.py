"""A reward behind a URL: posts batches as JSON and checks what comes back.

What is posted: {"prompts": [[{"role", "content"}, …], …], "replies": ["…"], "references": […], "data": [{…}]}, lists of
one length. What is expected: {"scores": [0.5, null, …]}, a number for each reply, or null to say nothing of it.

Addresses inside private networks are refused unless the operator lists the host in TUTELAGE_REWARD_HOSTS, so that
whoever may launch a run cannot reach what only the training machine can. A token is the operator's, too:
TUTELAGE_REWARD_TOKENS holds HOST=TOKEN pairs, separated by commas, and a token goes to its own host only.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from training.contract import InputError
from training.contract.rewards import URLReward
from training.preferences.reward_functions import RewardBatch, checked_scores

HOSTS: Final = "TUTELAGE_REWARD_HOSTS"
TOKENS: Final = "TUTELAGE_REWARD_TOKENS"
MAX_ANSWER: Final = 10 << 20  # bytes
TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0  # seconds
SHARE_OF_TIMEOUT: Final = 0.9  # the rest is for telling why it failed, before the process is ended


class ServerFailed(Exception):
    """The server gave no usable answer. `again`: it may, if asked again, after `pause` seconds at least."""

    def __init__(self, message: str, *, again: bool = False, pause: float = 0.0) -> None:
        super().__init__(message)
        self.again, self.pause = again, pause


class RewardServer:
    """Scores batches by asking `term.url`."""

    def __init__(
        self,
        term: URLReward,
        environment: Mapping[str, str] = os.environ,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.term, self.sleep, self.clock = term, sleep, clock
        url = urlsplit(term.url)
        self.host = url.hostname or ""
        self.port = url.port or (443 if url.scheme == "https" else 80)
        names = {self.host, f"{self.host}:{self.port}"}
        self.is_listed = bool(names & set(listed(environment.get(HOSTS, ""))))
        tokens = dict(pair.split("=", 1) for pair in listed(environment.get(TOKENS, "")) if "=" in pair)
        self.token = next((tokens[name] for name in sorted(names, reverse=True) if name in tokens), "")
        if self.token and url.scheme != "https" and not self.is_listed:
            raise InputError(
                f"rewards.url: a token is set for {self.host}, which goes over https only; begin the address with "
                "https://",
                code="config_invalid",
            )
        self.client = httpx.Client(trust_env=False, follow_redirects=False)

    def score(self, batch: RewardBatch) -> list[float | None]:
        """A score for each reply. Raises ServerFailed, after as many retries as the term allows."""
        body = {
            "prompts": [[turn.model_dump() for turn in prompt] for prompt in batch.prompts],
            "replies": list(batch.replies),
            "references": list(batch.references),
            "data": list(batch.data),
        }
        deadline = self.clock() + SHARE_OF_TIMEOUT * self.term.timeout
        pause, attempt = FIRST_PAUSE, 0
        while True:
            try:
                return self.ask(body, len(batch), deadline - self.clock())
            except ServerFailed as failure:
                wait = max(pause, failure.pause)
                if not failure.again or attempt >= self.term.retries or self.clock() + wait >= deadline:
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    raise ServerFailed(f"{self.host}: {failure}{tries}") from failure
            attempt += 1
            self.sleep(wait)
            pause = min(2 * pause, MAX_PAUSE)

    def ask(self, body: dict[str, Any], count: int, seconds: float) -> list[float | None]:
        """One try. Raises ServerFailed."""
        address = self.resolve()
        url = httpx.URL(self.term.url).copy_with(host=address)
        host = f"[{self.host}]" if ":" in self.host else self.host
        headers = {"Host": host if self.port in (80, 443) else f"{host}:{self.port}"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        with (
            network_failures(),
            self.client.stream(
                "POST", url, json=body, headers=headers, timeout=max(seconds, 0.1),
                extensions={"sni_hostname": self.host},
            ) as response,
        ):  # fmt: skip
            answer = read_answer(response)
        if response.status_code != 200:
            excerpt = " ".join(answer.decode(errors="replace").split())[:200]
            raise ServerFailed(
                f"it answered with status {response.status_code}{': ' * bool(excerpt)}{excerpt}",
                again=response.status_code in TRY_AGAIN,
                pause=retry_after(response.headers.get("retry-after", "")),
            )
        return scores_in(answer, count)

    def resolve(self) -> str:
        """The address to connect to, which is the one that was checked. Raises InputError if it is private."""
        try:
            resolved = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ServerFailed(f"its name is not known ({error.strerror or error})", again=True) from error
        addresses = [str(sockaddr[0]) for *_, sockaddr in resolved]
        if not self.is_listed and not all(ipaddress.ip_address(a.split("%")[0]).is_global for a in addresses):
            raise InputError(
                f"rewards.url: {self.host} is an address inside a private network. Whoever runs the training worker "
                f"can allow it: {HOSTS}={self.host}",
                code="config_invalid",
            )
        return addresses[0]


@contextmanager
def network_failures() -> Iterator[None]:
    """Raises ServerFailed where the connection fails."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise ServerFailed("it did not answer in time", again=True) from error
    except httpx.HTTPError as error:
        raise ServerFailed(f"it cannot be reached ({type(error).__name__}: {error})", again=True) from error


def read_answer(response: httpx.Response) -> bytes:
    chunks, size = [], 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > MAX_ANSWER:
            raise ServerFailed(f"its answer is longer than {MAX_ANSWER >> 20} MB")
        chunks.append(chunk)
    return b"".join(chunks)


def scores_in(answer: bytes, count: int) -> list[float | None]:
    """Raises ServerFailed if the answer is no list of `count` scores."""
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        raise ServerFailed("its answer is no JSON") from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("scores"), list):
        raise ServerFailed('its answer is not {"scores": [...]}')
    try:
        return checked_scores(parsed["scores"], count)
    except ValueError as error:
        raise ServerFailed(str(error)) from error


def retry_after(header: str) -> float:
    return min(float(header), MAX_PAUSE) if header.isdecimal() else 0.0


def listed(text: str) -> list[str]:
    return [item for item in map(str.strip, text.split(",")) if item]
