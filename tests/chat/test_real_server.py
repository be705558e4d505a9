"""Chats with the real model server and a random model, and processes that are killed in the middle of a reply."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone

from tests import factories
from tests.browser.scripted import scripted_server
from tests.chat.conftest import reply_of
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.chat import generation
from webapp.chat.models import Conversation, Message
from webapp.chat.services import conversations, replies
from webapp.model_server.serving import ModelServer
from webapp.registry.models import ModelVersion
from webapp.registry.services import deploy, register_model

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
PROJECT = Path(__file__).parents[2]
State = Message.State
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(true: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code < 500
    except httpx.HTTPError:
        return False


@dataclass
class RealServer:
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = {"stage": "serve", "port": self.port, "device": "cpu", "threads": 1, "slots": 2}
        (self.folder / "config.json").write_text(json.dumps(config))
        command = [sys.executable, "-m", "training", "serve", str(self.folder)]
        self.process = subprocess.Popen(command, cwd=PROJECT, env=ENVIRONMENT)
        until(lambda: answers(f"{self.url}/health"))

    def end(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = RealServer(tmp_path_factory.mktemp("serve"))
    server.start()
    yield server
    server.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Big enough to take some seconds over a long reply; at temperature 0 it hardly ever ends one."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.training.toys import toy_tokenizer
    from training.data.chat_format import ChatFormat
    from training.models.loading import save_model

    folder = tmp_path_factory.mktemp("model")
    tokenizer = toy_tokenizer()
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=384, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
        max_position_embeddings=1024, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    save_model(LlamaForCausalLM(config), tokenizer, folder, ChatFormat(tokenizer).stop_ids)
    return folder


@pytest.fixture
def served(project: Project, ada: User, random_model: Path, server: RealServer, settings: Any) -> Project:
    """The random model, registered and deployed as an admin does it."""
    settings.MODEL_SERVER_URL = server.url
    Project.objects.filter(pk=project.pk).update(temperature=0, max_new_tokens=24)
    project.refresh_from_db()
    number = int(uuid.uuid4()) % 1_000_000  # served names must not repeat on a server that outlives the test's database
    factories.model_version(project, number=number, kind=ModelVersion.Kind.TOKENIZER)
    model = register_model(project=project, name="random", kind="full", stage="sft", by=ada, folder=random_model)
    deploy(project=project, model=model, by=ada)
    return project


def begin(project: Project, user: User, text: str = "the cat sat") -> Conversation:
    return conversations.begin_conversation(user=user, project=project, text=text, token=uuid.uuid4())


def ended(reply: Message) -> Message:
    """The reply once it is over; it is written by the site's own thread meanwhile."""
    until(lambda: not Message.objects.get(pk=reply.pk).under_way)
    reply.refresh_from_db()
    return reply


def test_the_real_server_answers_to_the_longest_length(served: Any, tess: User) -> None:
    reply = ended(reply_of(begin(served, tess)))

    assert (reply.state, reply.finish, reply.error) == (State.COMPLETE, "length", "")
    assert reply.text == "".join(reply.events.values_list("text", flat=True))
    assert reply.text.strip()


def test_a_message_longer_than_the_context_is_told_in_a_sentence(served: Any, tess: User) -> None:
    reply = ended(reply_of(begin(served, tess, "the cat sat on the mat " * 400)))

    assert reply.state == State.REFUSED
    assert "Your message is longer than this model can read: it has 2,4" in reply.error
    assert "and the model reads 1,024" in reply.error


def test_a_conversation_longer_than_the_context_goes_on_without_its_oldest_turns(served: Any, tess: User) -> None:
    talk = begin(served, tess, "the cat sat on the mat " * 30)
    for _ in range(6):
        assert ended(reply_of(talk)).state == State.COMPLETE
        conversations.send(conversation=talk, text="the cat sat on the mat " * 30, token=uuid.uuid4())
    reply = ended(reply_of(talk))

    assert (reply.state, reply.finish) == (State.COMPLETE, "length")
    first = Message.objects.get(pk=existing(reply.seen_from))
    assert first.role == "user"
    assert talk.messages.filter(pk__lt=first.pk).count() >= 2


def test_a_reply_that_fills_the_context_says_so(served: Any, tess: User) -> None:
    Project.objects.filter(pk=served.pk).update(max_new_tokens=5000)
    served.refresh_from_db()

    assert ended(reply_of(begin(served, tess))).finish == "context"


def test_a_model_that_the_server_has_forgotten_is_loaded_again(served: Any, tess: User) -> None:
    talk = begin(served, tess)
    ended(reply_of(talk))
    ModelServer().unload(talk.model.served_name)

    conversations.send(conversation=talk, text="the sky is blue", token=uuid.uuid4())

    assert ended(reply_of(talk)).state == State.COMPLETE


def test_stopping_a_long_reply_keeps_what_had_come(served: Any, tess: User) -> None:
    Project.objects.filter(pk=served.pk).update(max_new_tokens=900)
    served.refresh_from_db()
    reply = reply_of(begin(served, tess))
    until(reply.events.exists)

    replies.stop_writing(message_id=reply.pk)

    reply.refresh_from_db()
    assert (reply.state, reply.finish) == (State.COMPLETE, "stopped")
    until(lambda: not generation.under_way)
    assert Message.objects.get(pk=reply.pk).text == reply.text


def test_a_model_server_that_is_killed_leaves_the_text_and_a_retry(served: Any, tess: User, server: Any) -> None:
    Project.objects.filter(pk=served.pk).update(max_new_tokens=900)
    served.refresh_from_db()
    talk = begin(served, tess)
    reply = reply_of(talk)
    until(reply.events.exists)

    server.end(signal.SIGKILL)
    ended(reply)
    shown = "".join(reply.events.values_list("text", flat=True))
    server.start()

    assert (reply.state, reply.text) == (State.INTERRUPTED, shown)
    assert "Try again" in reply.error
    Project.objects.filter(pk=served.pk).update(max_new_tokens=24)
    again = conversations.regenerate(message=reply, token=uuid.uuid4())
    assert ended(again).state == State.COMPLETE


def test_a_web_process_that_is_killed_loses_no_message_and_nothing_that_was_shown(
    project: Project, tess: User, settings: Any
) -> None:
    factories.deployment(project)
    client = Client()
    client.force_login(tess)
    port = free_port()
    database = django_settings.DATABASES["default"]
    address = django_settings.DATABASE_URL.replace("/postgres?", f"/{database['NAME']}?")
    token = uuid.uuid4()
    with scripted_server() as script:
        script.pieces = queue.Queue()
        web = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "webapp.asgi:application", "--port", str(port), "--log-level", "warning"],
            cwd=PROJECT,
            env={**ENVIRONMENT, "DATABASE_URL": address, "MODEL_SERVER_URL": script.url},
        )
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/accounts/login/"))
            browser = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
            browser.cookies.set(settings.SESSION_COOKIE_NAME, client.cookies[settings.SESSION_COOKIE_NAME].value)
            browser.get("/chat/")
            form = {"text": "Hello", "token": str(token), "project": "kite"}
            headers = {"X-CSRFToken": browser.cookies["csrftoken"]}
            assert browser.post("/chat/", data=form, headers=headers).status_code == 302
            script.pieces.put("Hel")
            reply = Message.objects.get(role="assistant")
            until(reply.events.exists)
            browser.close()
        finally:
            web.kill()
            web.wait()
        script.pieces.put("")

    replies.interrupt_stale(now=timezone.now() + replies.STALE + timedelta(seconds=1))
    reply.refresh_from_db()
    assert (reply.text, reply.state) == ("Hel", State.INTERRUPTED)

    sent_again = client.post("/chat/", form)  # by a browser that had no answer; the message counts once
    assert sent_again.headers["Location"] == f"/chat/{token}/"
    assert Message.objects.filter(role="user").count() == 1
    assert "Hel" in client.get(sent_again.headers["Location"]).content.decode()
    asyncio.run(generation.write_reply(reply.pk))  # what is over is not written again
    reply.refresh_from_db()
    assert reply.text == "Hel"
