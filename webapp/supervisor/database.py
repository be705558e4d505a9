"""The database alone, for commands that need no more of the site: the one that runs, or one started for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from webapp.home_folder import data_home, read_endpoints
from webapp.supervisor import postgres
from webapp.supervisor.child import State, SupervisedProcess
from webapp.supervisor.folder import CannotStart, hold_lock, is_locked, prepare_home
from webapp.supervisor.running import wait_for_endpoints

START_SECONDS = 60.0


@contextmanager
def database_running() -> Iterator[None]:
    """Enter it before Django reads its settings. DATABASE_URL names a server that answers while it lasts.

    Raises CannotStart if there is no database to speak of yet.
    """
    if "DATABASE_URL" in os.environ:
        yield
    elif is_locked():
        wait_for_endpoints(None)
        os.environ["DATABASE_URL"] = read_endpoints().get("DATABASE_URL", "")
        yield
    elif not (postgres.data_folder() / "PG_VERSION").exists():
        raise CannotStart(
            f"There is no database in {data_home()}. Start the site there once, or set TUTELAGE_HOME=/path."
        )
    else:
        prepare_home()
        with hold_lock(), embedded_postgres():
            yield


@contextmanager
def embedded_postgres() -> Iterator[None]:
    """The embedded server over this home, made if there is none, and DATABASE_URL. Hold the lock around it."""
    postgres.make_cluster()
    server = SupervisedProcess(postgres.postgres_spec(), data_home() / "logs" / "postgres.log")
    server.start()
    try:
        wait_until_ready(server)
        postgres.make_database()
        os.environ["DATABASE_URL"] = postgres.database_url()
        yield
    finally:
        os.environ.pop("DATABASE_URL", None)
        server.stop()
        deadline = time.monotonic() + server.spec.stop_seconds
        while server.is_alive and time.monotonic() < deadline:
            time.sleep(0.05)
        server.kill_group()


def wait_until_ready(server: SupervisedProcess) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.state != State.READY:
        server.watch()
        if server.deaths or time.monotonic() > deadline:
            end = "\n".join(f"    | {line}" for line in server.last_lines())
            raise CannotStart(f"PostgreSQL does not start:\n{end}\nThe whole log: {server.log}")
        time.sleep(0.05)
