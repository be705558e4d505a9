"""Ties a command to the life of the process that starts it: when that one dies, even by SIGKILL, so does this one.

Run as a script it makes the tie, gives up root where told to, and becomes the command under the same process id. Linux
keeps the tie (prctl(2), PR_SET_PDEATHSIG) to the *thread* that started the command, so start it from one that stays.
The standard library alone: it runs without site-packages, in 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


def tied(
    command: Sequence[str | Path], *, death: signal.Signals = signal.SIGKILL, nice: int = 0, user: str = ""
) -> list[str]:
    """The command line that runs `command` and sends it `death` when the process that runs this function ends."""
    this = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*this, str(os.getpid()), str(int(death)), str(nice), user, *map(str, command)]


def main(arguments: Sequence[str]) -> None:
    parent, death, nice, user, *command = arguments
    os.nice(int(nice))
    if user:
        become(user)
    if sys.platform == "linux":
        # After giving up root, which would undo it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death))
        if os.getppid() != int(parent):
            os.kill(os.getpid(), int(death))  # it died before the tie was made
    os.execvp(command[0], command)  # noqa: S606 (the command comes from `tied`)


def become(user: str) -> None:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


if __name__ == "__main__":
    main(sys.argv[1:])
