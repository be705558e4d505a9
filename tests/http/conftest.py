"""A real uvicorn over the test database, started as the site starts it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn


class Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """The test run keeps its own."""


@pytest.fixture
def address(transactional_db: None) -> Iterator[tuple[str, int]]:
    """Where the site listens."""
    from webapp.asgi import application
    from webapp.serve import OPTIONS

    server = Server(uvicorn.Config(application, port=0, **{**OPTIONS, "timeout_graceful_shutdown": 1}))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield host, port
    server.should_exit = True
    thread.join(timeout=10)
