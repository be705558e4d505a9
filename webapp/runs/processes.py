"""Processes by a name that outlives them: host, boot, id and start time, so that a reused id is not mistaken."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from functools import cache
from pathlib import Path

PROC = Path("/proc")


@cache
def this_host() -> str:
    """The machine (or container) since its last start."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        boot = "boot"
    return f"{socket.gethostname()}/{boot}"


def started(pid: int) -> str:
    """When the process began, in whatever units the system has; empty where it is gone or only waits to be reaped."""
    if PROC.joinpath("self").exists():
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "-".join(shown.stdout.split())


def identity(pid: int | None = None) -> str:
    """The name of a process of this machine; this process's own without `pid`."""
    pid = os.getpid() if pid is None else pid
    return f"{this_host()}/{pid}/{started(pid)}"


def is_here(name: str) -> bool:
    return name.startswith(f"{this_host()}/")


def is_alive(name: str) -> bool:
    """Whether the process named so runs on this machine; False for one of another machine too, so ask is_here first."""
    if not is_here(name):
        return False
    pid, _, start = name.removeprefix(f"{this_host()}/").partition("/")
    return bool(start) and started(int(pid)) == start


def signal_group(name: str, number: signal.Signals) -> None:
    """Signal the process and those it started. It leads a group of its own."""
    if is_alive(name):
        pid = int(name.removeprefix(f"{this_host()}/").partition("/")[0])
        try:
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            return


def end(name: str, grace: float) -> None:
    """Ask the process to stop, and kill it when it has not after `grace` seconds."""
    if not is_alive(name):
        return
    signal_group(name, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while is_alive(name) and time.monotonic() < deadline:
        time.sleep(0.1)
    signal_group(name, signal.SIGKILL)
    while is_alive(name):
        time.sleep(0.05)
