"""The site over real HTTP, in a thread of this process, beside a real model server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import uvicorn
from django.core.asgi import get_asgi_application

from tests.training.serving import Site as ModelSite
from tests.training.serving import until
from webapp.accounts.models import Project, User
from webapp.accounts.tokens import create_api_token
from webapp.bodies import BodyLimit


@dataclass
class Face:
    """The OpenAI-compatible face of the site."""

    url: str
    models: ModelSite
    project: Project
    tokens: dict[int, str] = field(default_factory=dict)

    def token(self, person: User) -> str:
        """The person's token, made at the first call: make it before threads ask, whose connections nobody closes."""
        if person.pk not in self.tokens:
            self.tokens[person.pk] = create_api_token(user=person, name="Test", scopes=["chat"])[1]
        return self.tokens[person.pk]

    def client(self, person: User, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key=self.token(person), max_retries=0, **options)

    def send(self, person: User | None, path: str, body: Any = None, method: str = "POST", **headers: str) -> Any:
        """One request. A body of bytes goes as it is, everything else as JSON."""
        if person is not None:
            headers = {"Authorization": f"Bearer {self.token(person)}", **headers}
        content = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **content)

    def chat(self, person: User | None, **body: Any) -> httpx.Response:
        messages = [{"role": "user", "content": "the cat sat"}]
        return self.send(person, "/v1/chat/completions", {"model": "kite", "messages": messages, **body})


@contextmanager
def site() -> Iterator[str]:
    """The address of a web process of the site."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(BodyLimit(get_asgi_application()), lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()
