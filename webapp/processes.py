"""Processes by a name that outlives them: host, boot, id and start time, so that a reused id is not mistaken."""

from __future__ import annotations

import os
import signal
import socket
import time
from functools import cache
from pathlib import Path
from typing import Final

import psutil

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
CLOCK_STEP: Final = 2.0  # seconds by which the system's idea of a start time may change when its clock is set


@cache
def this_host() -> str:
    """The machine (or container) since its last start."""
    boot = BOOT_ID.read_text()[:8] if BOOT_ID.exists() else "boot"
    return f"{socket.gethostname()}/{boot}"


def start_time(pid: int) -> float | None:
    """When the process began, in seconds since the epoch; None if it has ended, even if nobody has reaped it yet."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def identity(pid: int | None = None) -> str:
    """The name of a process of this machine; this process's own without `pid`."""
    pid = os.getpid() if pid is None else pid
    return f"{this_host()}/{pid}/{start_time(pid) or 0:.0f}"


def is_here(name: str) -> bool:
    return name.startswith(f"{this_host()}/")


def is_alive(name: str) -> bool:
    """Whether the process named so runs on this machine; False for one of another machine too, so ask is_here first."""
    if not is_here(name):
        return False
    pid, _, start = name.removeprefix(f"{this_host()}/").partition("/")
    started_at = start_time(int(pid))
    return started_at is not None and abs(started_at - float(start or 0)) <= CLOCK_STEP


def signal_group(name: str, number: signal.Signals) -> None:
    """Signal the process and those it started. It leads a group of its own."""
    if is_alive(name):
        pid = int(name.removeprefix(f"{this_host()}/").partition("/")[0])
        try:
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            return


def end_process(name: str, grace: float) -> None:
    """Ask the process to stop, and kill it if it has not after `grace` seconds."""
    if not is_alive(name):
        return
    signal_group(name, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while is_alive(name) and time.monotonic() < deadline:
        time.sleep(0.1)
    signal_group(name, signal.SIGKILL)
    while is_alive(name):
        time.sleep(0.05)
