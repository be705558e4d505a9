"""The embedded server that speaks Redis' protocol is a current Valkey, on a socket of its owner."""

from __future__ import annotations

from pathlib import Path

import psutil
import redis as client

from tests.supervisor.conftest import until
from webapp.supervisor import apps, redis
from webapp.supervisor.child import SupervisedProcess

OLDEST = (9, 1, 2)  # no flaw is known in it


def test_it_is_current_and_listens_on_a_socket_of_its_owner_alone(home: Path) -> None:
    child = SupervisedProcess(redis.redis_spec(apps.base_environment()), home / "logs" / "redis.log")
    child.start()
    try:
        until(lambda: child.watch() or child.state == "ready")
        assert child.state == "ready", child.last_lines()
        with client.Redis(unix_socket_path=str(redis.socket_file())) as connection:
            version = tuple(int(part) for part in connection.info("server")["valkey_version"].split("."))
        assert version >= OLDEST
        assert not psutil.Process(child.pid).net_connections("tcp")
        assert redis.socket_file().stat().st_mode & 0o077 == 0
    finally:
        child.kill_group()
