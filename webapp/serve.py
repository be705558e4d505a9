"""python -m webapp.serve FD: one web process that takes requests from the listening socket it was given.

The supervisor owns that socket, so a taken port is found before anything starts, several processes share it, and a
request that comes while one starts again waits instead of failing.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn

SHUTDOWN_SECONDS = 3
OPTIONS: dict[str, Any] = {
    "lifespan": "off",
    "access_log": False,
    "log_level": "warning",
    "log_config": None,  # the settings' LOGGING holds
    "timeout_graceful_shutdown": SHUTDOWN_SECONDS,
    "server_header": False,
    "proxy_headers": False,  # what a proxy says of the client is read where it matters; see BEHIND_PROXY
}


def main(descriptor: int) -> None:
    listening = socket.socket(fileno=descriptor)
    config = uvicorn.Config("webapp.asgi:application", **OPTIONS)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(int(sys.argv[1]))
