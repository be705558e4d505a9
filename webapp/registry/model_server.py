"""The model server as the site sees it: the part of vLLM's HTTP interface that lists, loads and asks models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from django.conf import settings

from webapp.errors import Unavailable

QUICK = 5.0
LOADING = 300.0


class ModelServer:
    """A client of one server. `transport` stands in for the network in tests."""

    def __init__(self, url: str = "", token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        self.url = (url or settings.MODEL_SERVER_URL).rstrip("/")
        token = token or settings.MODEL_SERVER_TOKEN
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {token}"} if token else {},
            "transport": transport,
        }

    def served(self) -> set[str]:
        """Names of the models that answer now. Raises Unavailable."""
        return {model["id"] for model in self._call("GET", "/v1/models", QUICK).json()["data"]}

    def load(self, name: str, folder: Path) -> None:
        """Serve the model of a folder under `name`; nothing happens where it already is. Raises Unavailable."""
        self._call("POST", "/v1/load_lora_adapter", LOADING, {"lora_name": name, "lora_path": str(folder)})

    def unload(self, name: str) -> None:
        self._call("POST", "/v1/unload_lora_adapter", QUICK, {"lora_name": name})

    def smoke_test(self, name: str) -> None:
        """Ask the model for a few tokens. Raises Unavailable, with the server's words, where none come."""
        messages = [{"role": "user", "content": "Hello"}]
        self._call("POST", "/v1/chat/completions", LOADING, {"model": name, "messages": messages, "max_tokens": 4})

    def _call(self, method: str, path: str, timeout: float, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            with httpx.Client(timeout=httpx.Timeout(timeout, connect=QUICK), **self._options) as client:
                response = client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The model server at {self.url} does not answer. Start it, or set MODEL_SERVER_URL to one that runs.",
                code="model_server_unavailable",
                error=str(error),
            ) from error
        if response.is_error:
            raise Unavailable(f"The model server refused: {words(response)}", code="model_server_refused", path=path)
        return response


def words(response: httpx.Response) -> str:
    """The sentence in an error response, whichever of the usual shapes it has."""
    try:
        body = response.json()
    except ValueError:
        return response.text.strip()[:300] or f"status {response.status_code}"
    for key in ("error", "detail", "message"):
        value = body.get(key) if isinstance(body, dict) else None
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return value
    return f"status {response.status_code}"
