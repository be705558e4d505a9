"""What the supervisor keeps in the home folder: its lock, the addresses of its servers, and who its children are."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from webapp.home_folder import data_home, endpoints_file, keep_private

UNFINISHED = "restore-unfinished"  # in a data folder that a restore was begun in
SOCKET_PATH_LIMIT = 100  # sun_path holds 107 bytes on Linux and 103 on macOS


class CannotStart(Exception):
    """The site cannot be started; the message says why, and what to do."""


class AlreadyRunning(CannotStart):
    pass


def prepare_home() -> None:
    """Make the folder, for its owner only, and all that is in it so where an earlier version had it otherwise."""
    folder = data_home()
    keep_private()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name in ("run", "logs", "serve", "static"):
            (folder / name).mkdir(exist_ok=True)
        for path in folder.iterdir():
            if not path.name.startswith("postgres"):  # which sees to its own
                make_private(path)
    except OSError as error:
        raise CannotStart(
            f"The data folder {folder} cannot be used: {error.strerror}. Choose another with TUTELAGE_HOME=/path."
        ) from error


def make_private(path: Path) -> None:
    """Take what others may do with a file or folder away from them. A folder comes after all that is in it, so that one
    that is private already need not be searched. Links and what belongs to another user are left alone."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o077 or status.st_uid != os.geteuid():
        return
    if stat.S_ISDIR(status.st_mode):
        for inner in path.iterdir():
            make_private(inner)
    path.chmod(status.st_mode & 0o700)


@contextmanager
def hold_lock() -> Iterator[None]:
    """One supervisor a home. The kernel lets go of the lock with the process, so it is never stale."""
    path = data_home() / "run" / "lock"
    with path.open("a+") as file:
        if not locked_at_last(file.fileno()):
            file.seek(0)
            raise AlreadyRunning(
                f"Tutelage runs already over {data_home()} (process {file.read().strip() or 'unknown'}). "
                "Stop it first, or choose another data folder with TUTELAGE_HOME=/path."
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def locked_at_last(descriptor: int, attempts: int = 20) -> bool:
    """Take the lock, with patience for those who only look whether it is taken."""
    for attempt in range(attempts):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05 if attempt < attempts - 1 else 0)
        else:
            return True
    return False


def is_locked() -> bool:
    """Does a supervisor run over this home?"""
    try:
        with (data_home() / "run" / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all, and for the owner's eyes only."""
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=1)
    fresh.replace(path)


def read_state(path: Path) -> Any:
    """What `write_json` wrote; an empty dict if there is nothing to read."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def write_endpoints(addresses: dict[str, str]) -> None:
    """For webapp.home_folder.read_endpoints."""
    write_json(endpoints_file(), addresses | {"TUTELAGE_HOME": str(data_home())})


def processes_file() -> Path:
    """Name, process id and state of every child: for people, and for a supervisor that finds its predecessor killed."""
    return data_home() / "run" / "processes.json"


def sockets_folder() -> Path:
    """Where local sockets go: run/ in the home, or a short path of our own where that is too long for a socket."""
    folder = data_home() / "run"
    return folder if fits_a_socket(folder / "redis.sock") else short_sockets_folder()


def short_sockets_folder() -> Path:
    """A folder with a short path for this home's sockets. Others may pass it, for the database's user must, and find
    nothing in it that opens to them. Raises CannotStart."""
    folder = data_home() / "run"
    name = f"tutelage-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:10]}"
    short = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / name
    short.mkdir(mode=0o700, exist_ok=True)
    status = short.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise CannotStart(f"{short} is needed for sockets and belongs to someone else; remove it.")
    short.chmod(0o711)
    return short


def fits_a_socket(path: Path) -> bool:
    return len(os.fsencode(path)) < SOCKET_PATH_LIMIT


def free_space_left(path: Path) -> int:
    """Bytes a person may still write beside `path`."""
    filesystem = os.statvfs(path)
    return filesystem.f_bavail * filesystem.f_frsize
