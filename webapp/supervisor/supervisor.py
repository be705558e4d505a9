"""Starts children in order, keeps them alive, and stops them in the reverse order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import psutil

from webapp.home_folder import data_home
from webapp.supervisor.child import Spec, State, SupervisedProcess, rotate
from webapp.supervisor.folder import CannotStart, processes_file, write_json

TICK = 0.1
ROTATE_EVERY = 60.0


class Interrupted(Exception):
    """Somebody asked for the end."""


class Supervisor:
    """`say` gets one line for a person at each change; `servers` in the names are stopped last."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.children: list[SupervisedProcess] = []
        self.asked_to_stop = 0
        self._say = say
        self._sleep = sleep
        self._clock = clock
        self._rotate_at = clock() + ROTATE_EVERY

    # ---------------------------------------------------------------------------------------------------- starting

    def start(self, spec: Spec) -> SupervisedProcess:
        child = SupervisedProcess(spec, data_home() / "logs" / f"{spec.name}.log", self._clock)
        child.start()
        self.children.append(child)
        self.remember()
        return child

    def wait_until_ready(self, children: Sequence[SupervisedProcess], timeout: float) -> None:
        """Raises CannotStart with the end of the log where one ends, or is not ready in time."""
        deadline = self._clock() + timeout
        while waiting := [child for child in children if child.state != State.READY]:
            for child in waiting:
                if child.deaths:
                    raise CannotStart(f"{child.spec.name} does not start:\n{quote(child)}\nThe whole log: {child.log}")
                if self._clock() > deadline:
                    raise CannotStart(
                        f"{child.spec.name} is not ready after {timeout:.0f} s:\n{quote(child)}\n"
                        f"The whole log: {child.log}"
                    )
            self.tick()

    def wait_for_first_word(self, children: Sequence[SupervisedProcess], timeout: float) -> None:
        """Until each is ready or has failed once; those that are late go on in the background."""
        deadline = self._clock() + timeout
        while self._clock() < deadline and any(c.state != State.READY and not c.deaths for c in children):
            self.tick()

    def tick(self) -> None:
        """Look at every child once. Raises Interrupted."""
        if self.asked_to_stop:
            raise Interrupted
        changed = False
        for child in self.children:
            if change := child.watch():
                changed = True
                self._say_of(child.spec.name, change, child.spec.note if child.state == State.READY else "")
                if child.state == State.WAITING and child.deaths == 1:
                    self._say(quote(child))
        if changed:
            self.remember()
        if self._clock() > self._rotate_at:
            self._rotate_at = self._clock() + ROTATE_EVERY
            for child in self.children:
                rotate(child.log)
        self._sleep(TICK)

    def remember(self) -> None:
        """Write down who the children are. A full disk must not end the processes that work on."""
        try:
            write_json(
                processes_file(),
                {
                    child.spec.name: {
                        "pid": child.pid,
                        "started": started_at(child.pid),
                        "state": child.state,
                        "home": str(data_home()),
                    }
                    for child in self.children
                },
            )
        except OSError as error:
            self._say(f"  {processes_file()} cannot be written: {error.strerror}")

    def say_outside(self, name: str, url: str) -> None:
        """A server that the environment names, so that it is not started here."""
        address = urlsplit(url)
        self._say_of(name, "outside", address._replace(netloc=address.netloc.rpartition("@")[2]).geturl())

    def _say_of(self, name: str, state: str, note: str = "") -> None:
        self._say(f"  {name:<15} {state:<17} {note}".rstrip())

    # ---------------------------------------------------------------------------------------------------- stopping

    def listen_to_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked_to_stop += 1

    def stop(self, servers: Sequence[str] = ("postgres", "redis")) -> None:
        """Everything else first, then the servers it uses; a second request to stop cuts the waiting short."""
        if not self.children:
            return
        self._say("Stopping; press Ctrl-C again to stop at once")
        self._stop_all([child for child in self.children if child.spec.name not in servers])
        self._stop_all([child for child in self.children if child.spec.name in servers])
        processes_file().unlink(missing_ok=True)
        self._say("Stopped")

    def _stop_all(self, children: Sequence[SupervisedProcess]) -> None:
        for child in children:
            child.stop()
        started_at = self._clock()
        waiting = list(children)
        while waiting and self.asked_to_stop < 2:
            self._sleep(TICK / 2)
            waited = self._clock() - started_at
            waiting = [child for child in waiting if child.is_alive and waited < child.spec.stop_seconds]
        for child in children:
            if child.is_alive:
                self._say_of(child.spec.name, "did not stop in time and was killed")
            child.kill_group()


def quote(child: SupervisedProcess) -> str:
    return "\n".join(f"    | {line}" for line in child.last_lines())


def started_at(pid: int) -> float:
    """Seconds since the epoch; 0 if the process is gone."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def log_file(name: str) -> Path:
    return data_home() / "logs" / f"{name}.log"
