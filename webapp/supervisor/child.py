"""One process that the supervisor keeps alive."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from webapp.home_folder import ROOT
from webapp.supervisor.launch import tied

LOG_BYTES = 10 * 1024 * 1024
OLD_LOGS = 3
STEADY_SECONDS = 30.0
LONGEST_WAIT = 30.0
GRACE_SECONDS = 5.0


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # it died and starts again after a while
    STOPPED = "stopped"


def always() -> bool:
    return True


def nothing() -> None:
    pass


@dataclass(frozen=True)
class Spec:
    """What to run. `before` runs ahead of every start, `is_ready` is asked until it says yes, and must not block."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(repr=False)
    before: Callable[[], None] = nothing
    is_ready: Callable[[], bool] = always
    folder: Path = ROOT
    user: str = ""
    nice: int = 0
    files: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    whole_group: bool = True
    stop_seconds: float = 10.0  # until it is killed
    note: str = ""


class SupervisedProcess:
    """A process of a session of its own, so that a Ctrl-C reaches the supervisor alone and it decides the order."""

    def __init__(self, spec: Spec, log: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.spec = spec
        self.log = log
        self.state = State.STOPPED
        self.deaths = 0
        self.since = 0.0
        self.pid = 0
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._again_at = 0.0
        self._died_at = 0.0

    def start(self) -> None:
        self.spec.before()
        rotate(self.log)
        command = tied(self.spec.command, death=self.spec.death_signal, nice=self.spec.nice, user=self.spec.user)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.spec.folder,
                env=dict(self.spec.environment),
                pass_fds=self.spec.files,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.since = self._clock()
        self.state = State.STARTING

    def watch(self) -> str:
        """Look once, act, and say in a few words what changed; nothing if nothing did."""
        if self.state == State.WAITING and self._clock() >= self._again_at and self._left_nobody():
            self.start()
        if self._process is None or self.state not in (State.STARTING, State.READY):
            return ""
        if (status := self._process.poll()) is not None:
            return self._died(status)
        if self.state == State.STARTING and self.spec.is_ready():
            self.state = State.READY
            return f"ready in {self._clock() - self.since:.1f} s"
        if self.deaths and self._clock() - self.since > STEADY_SECONDS:
            self.deaths = 0
        return ""

    def _died(self, status: int) -> str:
        wait = min(LONGEST_WAIT, 0.5 * 2**self.deaths) if self.deaths else 0.0
        self.deaths += 1
        self.state = State.WAITING
        self._again_at = self._clock() + wait
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._died_at = self._clock()
        self._send(signal.SIGTERM, group=True)  # what it had started writes its checkpoint
        return f"{how}; starts again {f'in {wait:.0f} s' if wait >= 1 else 'at once'}"

    def _left_nobody(self) -> bool:
        """Has everything that the dead process had started ended too? It gets `GRACE_SECONDS`."""
        if self._clock() - self._died_at > GRACE_SECONDS:
            self.kill_group()
            return True
        return not self._send(signal.Signals.SIGCONT, group=True)

    def stop(self) -> None:
        """Ask it to end."""
        if self.is_alive:
            self._send(self.spec.stop_signal, group=self.spec.whole_group)
        self.state = State.STOPPED

    def kill_group(self) -> None:
        """End what is left of it and of what it started, at once."""
        self._send(signal.SIGKILL, group=True)
        if self._process is not None:
            self._process.wait()

    def _send(self, number: signal.Signals, *, group: bool) -> bool:
        """Send a signal; false if there is nobody anymore to get it."""
        try:
            os.killpg(self.pid, number) if group else os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def last_lines(self, count: int = 8) -> list[str]:
        """The end of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 8192))
                return file.read().decode(errors="replace").splitlines()[-count:]
        except FileNotFoundError:
            return []


def rotate(log: Path, limit: int = LOG_BYTES, keep: int = OLD_LOGS) -> None:
    """Move a log that has grown past `limit` bytes aside. Its writer appends, so it goes on in the emptied file."""
    if not log.exists() or log.stat().st_size <= limit:
        return
    for number in range(keep - 1, 0, -1):
        older = log.with_suffix(f".log.{number}")
        if older.exists():
            older.replace(log.with_suffix(f".log.{number + 1}"))
    shutil.copyfile(log, log.with_suffix(".log.1"))
    os.truncate(log, 0)
