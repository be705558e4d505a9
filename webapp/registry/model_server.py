"""The model server as the site sees it: the part of vLLM's HTTP interface that lists, loads and asks models."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Any, Final, NamedTuple

import httpx
from django.conf import settings

from webapp.errors import Unavailable

log = logging.getLogger(__name__)

QUICK: Final = 5.0
LOADING: Final = 300.0


@cache
def tls() -> SSLContext:
    """The certificates, loaded once in a process: it takes longer than a request to a server nearby."""
    return create_default_context()


class ModelServer:
    """A client of one server. `transport` stands in for the network in tests."""

    def __init__(self, url: str = "", token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        self.url = (url or settings.MODEL_SERVER_URL).rstrip("/")
        token = token or settings.MODEL_SERVER_TOKEN
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {token}"} if token else {},
            "transport": transport,
            "verify": tls(),
        }

    def served(self) -> dict[str, bool]:
        """Names of the models that answer now, and whether their chat templates take a system turn; a server that does
        not say (vLLM) is taken to have such. Raises Unavailable."""
        models = self._call("GET", "/v1/models", QUICK).json()["data"]
        return {model["id"]: bool(model.get("takes_system", True)) for model in models}

    def load(self, name: str, folder: Path) -> None:
        """Serve the model of a folder under `name`; nothing happens where it already is. Raises Unavailable."""
        body = {"lora_name": name, "lora_path": str(folder)}
        self._call("POST", "/v1/load_lora_adapter", LOADING, body, hidden={str(folder): name})

    def unload(self, name: str) -> None:
        self._call("POST", "/v1/unload_lora_adapter", QUICK, {"lora_name": name})

    def smoke_test(self, name: str) -> None:
        """Ask the model for a few tokens. Raises Unavailable, with the server's words, where none come."""
        messages = [{"role": "user", "content": "Hello"}]
        self._call("POST", "/v1/chat/completions", LOADING, {"model": name, "messages": messages, "max_tokens": 4})

    def _call(
        self,
        method: str,
        path: str,
        timeout: float,
        body: dict[str, Any] | None = None,
        hidden: dict[str, str] | None = None,
    ) -> httpx.Response:
        """`hidden`: what people must not read in the server's words, and what stands in its place."""
        try:
            with httpx.Client(timeout=httpx.Timeout(timeout, connect=QUICK), **self._options) as client:
                response = client.request(method, path, json=body)
        except httpx.HTTPError as error:
            log.warning("the model server at %s does not answer: %r", self.url, error)
            raise Unavailable(
                "The model server does not answer. Whoever runs this installation starts it, or sets MODEL_SERVER_URL "
                "to one that runs.",
                code="model_server_unavailable",
                url=self.url,
                error=repr(error),
            ) from error
        if response.is_error:
            message = error_text(response)
            log.warning("the model server refused %s %s: %s", method, path, message)
            for text, instead in (hidden or {}).items():
                message = message.replace(text, instead)
            raise Unavailable(f"The model server refused: {message}", code="model_server_refused", path=path)
        return response


class Fault(NamedTuple):
    """What an error response says, "" where it does not say it."""

    message: str
    param: str
    code: str


def fault(response: httpx.Response) -> Fault:
    """What is in an error response, whichever of the usual shapes it has."""
    try:
        body = response.json()
    except ValueError:
        return Fault(response.text.strip()[:300] or f"status {response.status_code}", "", "")
    for key in ("error", "detail", "message"):
        value = body.get(key) if isinstance(body, dict) else None
        if isinstance(value, dict):
            named = [value.get(name) for name in ("message", "param", "code")]
            texts = [text if isinstance(text, str) else "" for text in named]
            if texts[0]:
                return Fault(*texts)
        if isinstance(value, str) and value:
            return Fault(value, "", "")
    return Fault(f"status {response.status_code}", "", "")


def error_text(response: httpx.Response) -> str:
    """The sentence in an error response."""
    return fault(response).message
