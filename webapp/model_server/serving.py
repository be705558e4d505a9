"""Which models the model server serves, by the part of vLLM's HTTP interface that lists, loads and tries them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx

from webapp.model_server.connection import client_options
from webapp.model_server.refusals import refused_to_serve, unreachable

QUICK: Final = 5.0
LOADING: Final = 300.0


class ModelServer:
    """A client of one server. `transport` stands in for the network in tests."""

    def __init__(self, url: str = "", token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        self._url, self._token, self._transport = url, token, transport

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
        options = client_options(timeout, url=self._url, token=self._token)
        try:
            with httpx.Client(**options, transport=self._transport) as client:
                response = client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise unreachable(options["base_url"], error) from error
        if response.is_error:
            raise refused_to_serve(path, response, hidden or {})
        return response
