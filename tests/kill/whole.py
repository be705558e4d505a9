"""The whole site as `make run` starts it, over a data folder of its own, with a way to kill any part of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from webapp.home_folder import ROOT

PATIENCE = 120.0
OUTSIDE = ("DATABASE_URL", "REDIS_URL", "MODEL_SERVER_URL", "SITE_URL", "PORT", "LISTEN", "TUTELAGE_TEST_SCRATCH")
# A Django of this site that does what it is told, line by line, and answers with what `result` was left at.
CONSOLE = """
import json, sys
import django
django.setup()
from django.db import connection
for line in sys.stdin:
    names = {}
    try:
        exec(json.loads(line), names)
        answer = {"result": names["result"]}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    connection.close()
    print(json.dumps(answer), flush=True)
"""


class Whole:
    """Its supervisor is a process like any other here."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
        self.environment = kept | {"TUTELAGE_HOME": str(home), "DJANGO_SETTINGS_MODULE": "webapp.settings"}
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.console: subprocess.Popen[str] | None = None

    # ------------------------------------------------------------------------------------------- starting, stopping

    def start(self) -> None:
        """Returns when every process says that it is ready."""
        self.home.mkdir(exist_ok=True)
        endpoints = self.home / "run" / "endpoints.json"
        endpoints.unlink(missing_ok=True)
        with (self.home / "up.txt").open("ab") as output:
            self.supervisor = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--any-port"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=self.environment,
                start_new_session=True,
            )
        until(lambda: endpoints.exists() and all(p["state"] == "ready" for p in self.processes().values()), self.said)
        self.url = str(json.loads(endpoints.read_text())["SITE_URL"])

    def stop(self) -> int:
        """As Ctrl-C does; the exit status."""
        self.close_console()
        assert self.supervisor is not None
        self.supervisor.send_signal(signal.SIGINT)
        return self.supervisor.wait(PATIENCE)

    def kill_supervisor(self) -> list[psutil.Process]:
        """SIGKILL; returns the processes that it had, which are to end by themselves."""
        self.close_console()
        assert self.supervisor is not None
        family = psutil.Process(self.supervisor.pid).children(recursive=True)
        self.supervisor.kill()
        self.supervisor.wait()
        return family

    def said(self) -> str:
        return (self.home / "up.txt").read_text()[-3000:]

    # --------------------------------------------------------------------------------------------------- processes

    def processes(self) -> dict[str, dict[str, Any]]:
        """What the supervisor writes down of its children."""
        try:
            return dict(json.loads((self.home / "run" / "processes.json").read_text()))
        except FileNotFoundError:
            return {}

    def pid(self, name: str) -> int:
        return int(self.processes()[name]["pid"])

    def send(self, number: signal.Signals, *names: str) -> None:
        for name in names:
            os.kill(self.pid(name), number)

    def kill(self, *names: str) -> Callable[[], None]:
        """SIGKILL each; what is returned waits until others in their place are ready."""
        before = {name: self.pid(name) for name in names}
        self.send(signal.SIGKILL, *names)

        def replaced() -> bool:
            now = self.processes()
            return all(now[name]["pid"] != pid and now[name]["state"] == "ready" for name, pid in before.items())

        return lambda: until(replaced, self.said)

    # ------------------------------------------------------------------------------------------------ what it holds

    def ask(self, program: str) -> Any:
        """Run Python in a Django of this site; the value of its `result`."""
        if self.console is None or self.console.poll() is not None:
            self.console = subprocess.Popen(
                [sys.executable, "-c", CONSOLE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=self.environment,
            )
        assert self.console.stdin is not None
        assert self.console.stdout is not None
        self.console.stdin.write(json.dumps(program) + "\n")
        self.console.stdin.flush()
        answer = json.loads(self.console.stdout.readline())
        assert "result" in answer, answer["error"]
        return answer["result"]

    def close_console(self) -> None:
        if self.console is not None:
            self.console.communicate(timeout=20)
            self.console = None

    def visitor(self, email: str, password: str) -> Visitor:
        return Visitor(self, email, password)


class Visitor:
    """A person with a browser that tries again, as theirs does."""

    def __init__(self, site: Whole, email: str, password: str) -> None:
        self.site = site
        self.http = httpx.Client(base_url=site.url, follow_redirects=True, timeout=30)
        self.get("/accounts/login/")
        page = self.post("/accounts/login/", {"login": email, "password": password})
        assert "/accounts/login/" not in str(page.url), "the password was not accepted"

    def get(self, path: str) -> str:
        return self.http.get(path).raise_for_status().text

    def post(self, path: str, fields: dict[str, Any]) -> httpx.Response:
        token = self.http.cookies.get("csrftoken", "")
        return self.http.post(path, data=fields | {"csrfmiddlewaretoken": token}, headers={"Referer": self.site.url})

    def post_until_accepted(self, path: str, fields: dict[str, Any]) -> None:
        """The same again after every failure, with the same token."""

        def accepted() -> bool:
            try:
                return self.post(path, fields).status_code == 200
            except httpx.TransportError:
                return False

        until(accepted, self.site.said)


def until(condition: Callable[[], object], told: Callable[[], object] = lambda: "", seconds: float = PATIENCE) -> None:
    """Wait for it, not for a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it never came true. {told()}"
        time.sleep(0.1)


def hidden(page: str, name: str) -> str:
    """The value of a field of a form."""
    found = re.search(rf'name="{name}"[^>]*value="([^"]+)"', page)
    assert found, f"the page has no {name}"
    return found[1]


def fresh_token() -> str:
    return str(uuid.uuid4())
