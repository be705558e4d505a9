"""A running site for the length of a block: the one there is, or one that is started for it and stopped after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from webapp.home_folder import ROOT, data_home, endpoints_file, read_endpoints
from webapp.supervisor.folder import CannotStart, is_locked, prepare_home
from webapp.supervisor.launch import tied

START_SECONDS = 120.0
STOP_SECONDS = 60.0
SERVERS = ("DATABASE_URL", "REDIS_URL", "MODEL_SERVER_URL")


@dataclass(frozen=True)
class Site:
    """Where it answers; `started_here` when this process started it, and stops it."""

    url: str
    addresses: dict[str, str]
    started_here: bool


@contextmanager
def running(folder: Path | None = None) -> Iterator[Site]:
    """Enter it before Django reads its settings, for they take the servers' addresses from here.

    Where DATABASE_URL names a server, the processes of the site are somebody else's to run and nothing is started.
    Raises CannotStart.
    """
    if folder is not None:
        os.environ["TUTELAGE_HOME"] = str(folder)
    if "DATABASE_URL" in os.environ:
        environment = {name: os.environ[name] for name in SERVERS if name in os.environ}
        yield Site(os.environ.get("SITE_URL", ""), environment, started_here=False)
    elif is_locked():
        addresses = wait_for_endpoints(None)
        yield Site(addresses["SITE_URL"], addresses, started_here=False)
    else:
        with started() as addresses:
            yield Site(addresses["SITE_URL"], addresses, started_here=True)


@contextmanager
def started() -> Iterator[dict[str, str]]:
    """`manage.py up` as a process of its own, which ends with this one however that ends."""
    prepare_home()
    endpoints_file().unlink(missing_ok=True)  # of a supervisor that was killed
    log = data_home() / "logs" / "up.log"
    command = tied([sys.executable, ROOT / "manage.py", "up", "--any-port"], death=signal.SIGTERM)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
        )
    try:
        yield wait_for_endpoints(process)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_endpoints(process: subprocess.Popen[bytes] | None) -> dict[str, str]:
    """The addresses, once the web answers. Raises CannotStart if the supervisor ends before, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not (addresses := read_endpoints()) or not is_locked():
        if process is not None and process.poll() is not None:
            raise CannotStart((data_home() / "logs" / "up.log").read_text().strip())
        if time.monotonic() > deadline:
            raise CannotStart(
                f"The site over {data_home()} did not start in {START_SECONDS:.0f} s; see {data_home() / 'logs'}."
            )
        time.sleep(0.1)
    return addresses
