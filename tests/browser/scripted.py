"""A model server that says what a test wants, when it wants: the same HTTP as the real one, words from a script."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Script:
    """What is said next. `replies`: whole replies, word by word. `pieces`: where not none, one piece at a time, as the
    test puts them; an empty one ends the reply."""

    def __init__(self) -> None:
        self.replies: queue.Queue[str] = queue.Queue()
        self.pieces: queue.Queue[str] | None = None
        self.asked: list[dict[str, Any]] = []
        self.url = ""

    def words(self) -> Iterator[str]:
        if self.pieces is None:
            text = self.replies.get_nowait() if not self.replies.empty() else "I do not know."
            for number, word in enumerate(text.split(" ")):
                yield word if number == 0 else " " + word
            return
        while piece := self.pieces.get(timeout=30):
            yield piece


def handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            self.answer({"object": "list", "data": [{"id": f"kite-{n}"} for n in range(1, 9)]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                self.send_error(404)  # as servers that do not count
                return
            script.asked.append(body)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for word in script.words():
                    self.event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
                self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                self.wfile.write(b"data: [DONE]\n\n")
            except (BrokenPipeError, ConnectionResetError):
                return  # the site did not want to hear more

        def event(self, chunk: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()

        def answer(self, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


@contextmanager
def scripted_server() -> Iterator[Script]:
    script = Script()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(script))
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield script
    server.shutdown()
    server.server_close()
