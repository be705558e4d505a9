"""An OpenAI-compatible endpoint over real HTTP whose judge is a function of what it is asked."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Said:
    """An answer: text in a chat completion, or a bare status with headers; `drop` closes the connection instead."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    drop: bool = False


Judgment = Callable[[str, int], Said]


def replies_in(question: str) -> tuple[str, ...]:
    """The replies in a question to a judge."""
    found = re.findall(r"\[Reply(?: [AB])?\]\n(.*?)(?=\n\n\[Reply|\n\nWhich reply|\n\nHow good)", question, re.DOTALL)
    return tuple(found)


def winner(letter: str, reason: str = "It is right.") -> Said:
    return Said(json.dumps({"reason": reason, "winner": letter}))


def prefers(value: Callable[[str], float]) -> Judgment:
    """Judges a pair by a number, whatever the order."""

    def judge(question: str, _: int) -> Said:
        a, b = map(value, replies_in(question))
        return winner("A" if a > b else "B" if b > a else "tie")

    return judge


class FakeEndpoint:
    """`asked` has the body of each request, `most` how many were under way at once."""

    def __init__(self, judgment: Judgment) -> None:
        self.judgment, self.asked, self.keys, self.most, self.now = judgment, [], [], 0, 0  # type: ignore[var-annotated]
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake.lock:
                    fake.asked.append(body)
                    fake.keys.append(self.headers.get("Authorization", ""))
                    number = len(fake.asked)
                    fake.now += 1
                    fake.most = max(fake.most, fake.now)
                try:
                    said = fake.judgment(body["messages"][0]["content"], number)
                    time.sleep(said.seconds)
                    self.answer(said)
                finally:
                    with fake.lock:
                        fake.now -= 1

            def answer(self, said: Said) -> None:
                if said.drop:
                    self.close_connection = True
                    return
                whole: Any = {
                    "choices": [{"message": {"role": "assistant", "content": said.text}}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 10},
                }
                content = json.dumps(whole) if said.status == 200 else json.dumps({"error": {"message": said.text}})
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    @property
    def address(self) -> str:
        return f"http://{self.host}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
