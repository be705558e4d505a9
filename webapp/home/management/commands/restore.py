"""manage.py restore BACKUP: put a backup into the data folder that TUTELAGE_HOME names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import environ
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.utils import timezone

from webapp.backups.restore import restore_backup
from webapp.home.management.commands.backup import byte_progress, command_errors
from webapp.supervisor.database import embedded_postgres
from webapp.supervisor.folder import CannotStart, hold_lock, prepare_home


class Command(BaseCommand):
    help = (
        "Check a backup and put it into the data folder (TUTELAGE_HOME) and its database. The site must not run. "
        "BACKUP is one backup, or the folder of several, whose newest is taken."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("backup", type=Path)
        parser.add_argument(
            "--replace", action="store_true", help="also where there is data already, which is moved aside"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            prepare_home()
            with hold_lock(), command_errors(), byte_progress() as moved:
                restore_backup(
                    home=settings.HOME,
                    source=options["backup"].absolute(),
                    replace=options["replace"],
                    now=timezone.now(),
                    start=database,
                    say=self.stdout.write,
                    moved=moved,
                )
        except CannotStart as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"Restored into {settings.HOME}. Start the site there: make run TUTELAGE_HOME={settings.HOME}"
        )


@contextmanager
def database() -> Iterator[None]:
    """The server that DATABASE_URL names, else the embedded one over the data folder as it is now."""
    if "DATABASE_URL" in os.environ:
        yield
        return
    with embedded_postgres():
        # The settings were read before there was a server.
        config = environ.Env.db_url_config(os.environ["DATABASE_URL"])
        connection.settings_dict["OPTIONS"] |= config.pop("OPTIONS", {})
        connection.settings_dict |= config
        try:
            yield
        finally:
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's wrapper has it
