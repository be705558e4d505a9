"""A model server in this process, and what tests ask of it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import torch
import uvicorn

from tests.training.toys import turns
from training.contract import ServedWeights
from training.engine.kv_budget import KVBudget
from training.models.compute import Compute
from training.serve.app import build_app
from training.serve.pool import ModelPool
from training.serve.scheduler import Scheduler

COMPUTE = Compute(torch.device("cpu"), torch.float32)
TOKEN = "secret"
HELLO: Any = turns("the cat sat")
ENDLESS: dict[str, Any] = {"ignore_eos": True}  # an extension: without it a random model may end at once


@dataclass
class Site:
    url: str
    pool: ModelPool
    scheduler: Scheduler
    folders: dict[str, Path]

    def post(self, path: str, body: Any, token: str = TOKEN) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def get(self, path: str, token: str = TOKEN) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def chat(self, token: str = TOKEN, **body: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", {"model": "toy", "messages": HELLO, "max_tokens": 8, **body}, token)

    def load(self, name: str, folder: Path | str) -> httpx.Response:
        return self.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key=TOKEN, max_retries=0)


@contextmanager
def served(
    folders: dict[str, Path],
    slots: int = 2,
    most: int = 2,
    memory: KVBudget | None = None,
    weights: ServedWeights = "full",
    **options: Any,
) -> Iterator[Site]:
    """A model server in this process; it serves the folder `toy`, if any."""
    pool = ModelPool(COMPUTE, slots=slots, max_models=most, memory=memory, weights=weights)
    if "toy" in folders:
        pool.load("toy", str(folders["toy"]))
    scheduler = Scheduler()
    scheduler.start()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_app(pool, scheduler, token=TOKEN, **options), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", pool, scheduler, folders)
    server.should_exit = True
    thread.join()
    scheduler.stop()
    listener.close()


def until(true: Callable[[], bool]) -> None:
    """Waits for something another thread does; fails after a time no machine needs."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
