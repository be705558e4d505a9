"""The whole site on this machine: what `manage.py up` starts, in which order, and what it prints."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import psutil

from webapp.home_folder import ROOT, data_home, endpoints_file
from webapp.setup_code import first_account_address, is_reachable
from webapp.supervisor import apps, postgres, redis
from webapp.supervisor.folder import (
    UNFINISHED,
    CannotStart,
    free_space_left,
    hold_lock,
    prepare_home,
    write_endpoints,
)
from webapp.supervisor.leftovers import end_leftovers
from webapp.supervisor.supervisor import Interrupted, Supervisor, log_file

START_SECONDS = 60.0
LITTLE_SPACE = 500 * 1024 * 1024


@dataclass(frozen=True)
class SiteOptions:
    host: str = "127.0.0.1"
    port: int = 8000
    any_port: bool = False  # another one where that is taken
    web_processes: int = 2
    apps: apps.ProcessCounts = field(default_factory=apps.ProcessCounts)


def run_site(options: SiteOptions, say: Callable[[str], None]) -> None:
    """Start everything and keep it running until somebody asks for the end. Raises CannotStart."""
    if (data_home() / UNFINISHED).exists():
        raise CannotStart(f"A restore into {data_home()} was cut short. Run it again: manage.py restore BACKUP")
    prepare_home()
    with ExitStack() as stack:
        stack.enter_context(hold_lock())
        if ended := end_leftovers():
            say(f"  ended {len(ended)} processes that a killed supervisor had left")
        endpoints_file().unlink(missing_ok=True)
        listening = stack.enter_context(listen_somewhere(options))
        supervisor = Supervisor(say)
        supervisor.listen_to_signals()
        stack.callback(endpoints_file().unlink, missing_ok=True)
        stack.callback(supervisor.stop)
        try:
            start_site(supervisor, options, listening, say)
            while True:
                supervisor.tick()
        except Interrupted:
            return


def start_site(
    supervisor: Supervisor, options: SiteOptions, listening: socket.socket, say: Callable[[str], None]
) -> None:
    say(f"Tutelage, with its data in {data_home()}")
    if (free := free_space_left(data_home())) < LITTLE_SPACE:
        say(f"  Only {free // 2**20} MB are free on that disk; labels and runs need more soon.")
    environment = apps.base_environment()
    addresses = start_servers(supervisor, environment)
    addresses["SITE_URL"] = os.environ.get("SITE_URL") or site_url(listening)
    embedded_model_server = "MODEL_SERVER_URL" not in os.environ
    if not embedded_model_server:
        supervisor.say_outside("model-server", os.environ["MODEL_SERVER_URL"])
    else:
        addresses["MODEL_SERVER_URL"] = f"http://127.0.0.1:{free_port('MODEL_SERVER_PORT')}"
        addresses["MODEL_SERVER_TOKEN"] = os.environ.get("MODEL_SERVER_TOKEN") or secrets.token_urlsafe(24)
    environment |= {**addresses, "LISTEN": options.host}
    facts = prepare_database(environment)
    webs = [supervisor.start(apps.web(n + 1, environment, listening.fileno())) for n in range(options.web_processes)]
    supervisor.wait_until_ready(webs, START_SECONDS)
    write_endpoints(addresses)
    others = apps.workers(environment, options.apps)
    if embedded_model_server:
        others.append(apps.model_server(environment, addresses["MODEL_SERVER_URL"], addresses["MODEL_SERVER_TOKEN"]))
    supervisor.wait_for_first_word([supervisor.start(spec) for spec in others], START_SECONDS)
    site = addresses["SITE_URL"]
    way_in = entrance(site, listen=options.host, terminal=sys.stdout.isatty())
    say(welcome(site, has_admin=facts["has_admin"], entrance=way_in))


def start_servers(supervisor: Supervisor, environment: dict[str, str]) -> dict[str, str]:
    """PostgreSQL and Redis, where the environment does not name others."""
    addresses, embedded = {}, []
    if "DATABASE_URL" not in os.environ:
        postgres.make_cluster()
        embedded.append(supervisor.start(postgres.postgres_spec()))
        addresses["DATABASE_URL"] = postgres.database_url()
    else:
        supervisor.say_outside("postgres", os.environ["DATABASE_URL"])
    if "REDIS_URL" not in os.environ:
        embedded.append(supervisor.start(redis.redis_spec(environment)))
        addresses["REDIS_URL"] = redis.redis_url()
    else:
        supervisor.say_outside("redis", os.environ["REDIS_URL"])
    supervisor.wait_until_ready(embedded, START_SECONDS)
    if "DATABASE_URL" in addresses:
        postgres.make_database()
    return addresses


def prepare_database(environment: dict[str, str]) -> dict[str, bool]:
    """Migrate. Raises CannotStart with what went wrong."""
    output = log_file("prepare")
    with output.open("w") as log:
        status = subprocess.run(
            apps.prepare_command(),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        )
    if status.returncode:
        lines = output.read_text().splitlines()
        raise CannotStart("\n".join(["The database could not be prepared:", *lines[-6:], f"The whole log: {output}"]))
    return apps.prepared(output)


def welcome(address: str, *, has_admin: bool, entrance: str = "") -> str:
    """`entrance`: where the first account is made, as this terminal may show it."""
    entry = (
        f"Log in at {address}/accounts/login/" if has_admin else f"Make the first account, which runs it: {entrance}"
    )
    return f"\nTutelage answers at {address}\n{entry}\nCtrl-C stops everything\n"


def entrance(address: str, *, listen: str, terminal: bool) -> str:
    """Where the first account is made. The code that it needs where others reach the site goes to no file."""
    if is_reachable(listen=listen, site=address) and not terminal:
        return "run `manage.py setup_code` for its link"
    return first_account_address(listen=listen, site=address)


# ------------------------------------------------------------------------------------------------------------ addresses


def listen_somewhere(options: SiteOptions) -> socket.socket:
    try:
        return listen(options.host, options.port)
    except CannotStart:
        if not options.any_port:
            raise
        return listen(options.host, 0)


def listen(host: str, port: int) -> socket.socket:
    """The site's listening socket. Raises CannotStart if the port is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        raise CannotStart(
            f"Port {port} on {host} cannot be used: {taken_by(port) or error.strerror}. "
            f"Choose another: make run PORT={port + 1}, or manage.py up --port {port + 1}"
        ) from error


def taken_by(port: int) -> str:
    """Who listens there, if the system says."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return f"{psutil.Process(connection.pid).name()} (process {connection.pid}) listens there"
    return ""


def free_port(variable: str) -> int:
    """The port that the environment asks for, or one that nobody uses."""
    if requested := os.environ.get(variable):
        return int(requested)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def site_url(listening: socket.socket) -> str:
    """How a browser on this machine reaches it."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
