"""Processes that outlived a supervisor which was killed: found, and ended, before a new one starts."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import psutil

from webapp.home_folder import data_home
from webapp.supervisor.folder import processes_file, read_state

MARK = "TUTELAGE_SUPERVISED"
PATIENCE = 8.0


def end_leftovers() -> list[str]:
    """End them all, and return the names of those that had to be. Call it with the lock held.

    A process is one of them where it carries the mark of this home in its environment, or belongs to a session that a
    child of the old supervisor led. PostgreSQL's are left to its own module, which knows how to end them gently.
    """
    if not processes_file().exists():
        return []
    processes = leftovers(read_state(processes_file()))
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=PATIENCE)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)
    processes_file().unlink()
    return [str(process.pid) for process in processes]


def leftovers(children: dict[str, Any]) -> list[psutil.Process]:
    sessions = {
        int(child["pid"]): float(child["started"])
        for name, child in children.items()
        # A copy of a running site's folder has a copy of this list, whose processes are not its own.
        if name != "postgres" and child.get("home") == str(data_home())
    }
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    processes = []
    for process in psutil.process_iter():
        try:
            if process.pid not in ours and (in_session(process, sessions) or carries_the_mark(process)):
                processes.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return processes


def in_session(process: psutil.Process, sessions: dict[int, float]) -> bool:
    """Is it of a session whose leader was our child? The number alone could have gone to another since."""
    try:
        leader = os.getsid(process.pid)
    except (ProcessLookupError, PermissionError):
        return False
    if leader not in sessions:
        return False
    started = sessions[leader]
    created = float(process.create_time())
    return abs(created - started) < 1 if process.pid == leader else created >= started - 1


def carries_the_mark(process: psutil.Process) -> bool:
    return bool(process.name() != "postgres" and process.environ().get(MARK) == str(data_home()))
