"""The database of a backup: what it holds at one moment, written by pg_dump and read back by pg_restore."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from psycopg import sql
from psycopg.conninfo import make_conninfo

from webapp.data.models import Import
from webapp.datasets.models import Snapshot
from webapp.errors import Unavailable
from webapp.registry.addresses import local_path, resolved
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run
from webapp.supervisor import postgres

# Of libpq's parameters, those that a client program needs to reach the same server.
CONNECTION = (
    "dbname", "user", "host", "port", "service", "options", "connect_timeout", "target_session_attrs",
    "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "gssencmode", "channel_binding",
)  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """What the database holds as of one snapshot of it, which `snapshot` names for pg_dump."""

    snapshot: str
    server: str
    rows: dict[str, int]
    migrations: dict[str, list[str]]
    references: list[str]
    outside: list[str]


@contextmanager
def one_moment() -> Iterator[Moment]:
    """Everything read in the block, and dumped with its snapshot, is as of the same moment. Nobody is kept waiting."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SELECT pg_export_snapshot(), current_setting('server_version')")
            snapshot, server = cursor.fetchone()
        inside, outside = references()
        yield Moment(snapshot, server, row_counts(), applied_migrations(), inside, outside)


def row_counts() -> dict[str, int]:
    with connection.cursor() as cursor:
        counts = {}
        for table in sorted(connection.introspection.table_names(cursor)):
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)).as_string(None))
            counts[table] = int(cursor.fetchone()[0])
    return counts


def applied_migrations() -> dict[str, list[str]]:
    applied: dict[str, list[str]] = {}
    for app, name in sorted(MigrationRecorder(connection).applied_migrations()):
        applied.setdefault(app, []).append(name)
    return applied


def newer_migrations(applied: dict[str, list[str]]) -> list[str]:
    """Of the migrations of a backup, those that this version does not have."""
    on_disk = MigrationLoader(None).disk_migrations
    replaced = {pair for migration in on_disk.values() for pair in migration.replaces}
    ours = {app for app, _ in on_disk}
    return [
        f"{app}.{name}"
        for app, names in applied.items()
        for name in names
        if app in ours and (app, name) not in on_disk and (app, name) not in replaced
    ]


def references() -> tuple[list[str], list[str]]:
    """The files that rows name, by their paths from the data folder, and the stores elsewhere that rows name."""
    named: set[str] = set()
    for address, files in ModelVersion.objects.values_list("artefact", "files"):
        named |= {f"{address}/{name}" for name in files}
    for model, field in ((Snapshot, "files"), (Run, "outputs")):
        for files in model._default_manager.values_list(field, flat=True):
            named |= set(files.values())
    inside, outside = set(), set()
    for address in named:
        path = local_path(resolved(address, settings.HOME))
        if path is not None and path.is_relative_to(settings.HOME):
            inside.add(path.relative_to(settings.HOME).as_posix())
        else:
            outside.add(store_of(address))
    inside |= {f"uploads/{name}" for name in Import.objects.exclude(file="").values_list("file", flat=True)}
    return sorted(inside), sorted(outside)


def store_of(address: str) -> str:
    for folder in ("/models/", "/snapshots/", "/outputs/"):
        if folder in address:
            return address.partition(folder)[0]
    return address.rpartition("/")[0]


# ---------------------------------------------------------------------------------------------------------- programs


def client_program(name: str) -> str:
    """pg_dump or pg_restore: of the embedded server's wheel, else of this machine. Raises Unavailable."""
    if find_spec(postgres.PACKAGE) is not None:
        return str(postgres.binaries() / name)
    if path := shutil.which(name):
        return path
    raise Unavailable(
        f"There is no {name} here. Install PostgreSQL's client programs, or pip install {postgres.PACKAGE}."
    )


def run_client(name: str, *arguments: str | Path) -> str:
    """What a client program prints. Its password goes by the environment, where others do not see it.

    Raises Unavailable.
    """
    parameters = connection.get_connection_params()
    password = str(parameters.get("password") or "")
    target = make_conninfo(**{key: parameters[key] for key in CONNECTION if parameters.get(key) not in (None, "")})
    done = subprocess.run(
        [client_program(name), f"--dbname={target}", *arguments],
        env={"PATH": os.environ.get("PATH", ""), "PGPASSWORD": password, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        error_lines = done.stderr.strip().splitlines()[-3:]
        raise Unavailable(f"{name} failed: {' '.join(error_lines) or f'it ended with status {done.returncode}'}")
    return done.stdout


def dump(moment: Moment, target: Path) -> None:
    run_client(
        "pg_dump",
        "--format=custom",
        f"--snapshot={moment.snapshot}",
        "--no-owner",
        "--no-privileges",
        f"--file={target}",
    )


def check_dump(path: Path) -> None:
    """Raises Unavailable if pg_restore cannot read it."""
    done = subprocess.run([client_program("pg_restore"), "--list", path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{path} cannot be read by pg_restore: {done.stderr.strip()[-300:]}")


def load_dump(path: Path, *, replace: bool) -> None:
    """All of it or nothing. `replace` drops what is there under the same names first. Raises Unavailable."""
    cleaning = ["--clean", "--if-exists"] if replace else []
    run_client(
        "pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", *cleaning, path
    )


def is_database_empty() -> bool:
    with connection.cursor() as cursor:
        return not connection.introspection.table_names(cursor)


def let_go_of_processes() -> None:
    """Take up again what went on when the backup was made. The processes that rows name are the original's, which
    may run on this very machine and are none of ours."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE runs_run SET child = ''")
        # An older backup may lack columns of the present models.
        cursor.execute("SELECT table_name FROM information_schema.columns WHERE column_name = 'claimed_by'")
        for (table,) in cursor.fetchall():
            free = sql.SQL("UPDATE {} SET claim = NULL, claimed_by = '', heartbeat_at = NULL")
            cursor.execute(free.format(sql.Identifier(table)))
