"""manage.py backup FOLDER: a backup of everything, while the site runs; --check reads one again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from webapp.backups.backup import check_backup, make_backup
from webapp.backups.files import Progress
from webapp.errors import TutelageError

MAX_NAMED = 5


class Command(BaseCommand):
    help = (
        "Back up the database, models, run folders, uploads and the secret key into a new folder in FOLDER, while the "
        "site runs. Files that the last backup there has already are linked, not copied. --check reads a backup again."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="where backups go, on another disk if you can; with --check, one")
        parser.add_argument("--check", action="store_true", help="read every file of a backup and compare its hash")
        parser.add_argument("--keep", type=int, default=0, metavar="N", help="then remove all but the newest N")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"].absolute()
        with command_errors(), byte_progress() as moved:
            if options["check"]:
                self.check_one(folder, moved)
            else:
                self.make_one(folder, options["keep"], moved)

    def make_one(self, folder: Path, keep: int, moved: Progress) -> None:
        if keep < 0:
            raise CommandError("--keep: a number of backups, 1 or more; 0 keeps all.")
        backup = make_backup(
            home=settings.HOME,
            destination=folder,
            now=timezone.now(),
            say=self.stdout.write,
            moved=moved,
            keep=keep,
        )
        self.stdout.write(
            f"{backup.folder} is whole: {gigabytes(backup.copied)} new, {gigabytes(backup.linked)} as before"
        )
        for store in backup.manifest.outside:
            self.stdout.write(f"Not part of it: files in {store}. Back that store up by its own means.")
        if not settings.RUNS_FOLDER.is_relative_to(settings.HOME):
            self.stdout.write(f"Not part of it: run folders in {settings.RUNS_FOLDER}.")
        for name in backup.missing[:MAX_NAMED]:
            self.stderr.write(f"{settings.HOME / name} is missing, though the database names it.")
        if len(backup.missing) > MAX_NAMED:
            self.stderr.write(f"{len(backup.missing) - MAX_NAMED:,} more files are missing.")

    def check_one(self, folder: Path, moved: Progress) -> None:
        backup, manifest, wrong = check_backup(folder, say=self.stdout.write, moved=moved)
        missing = [f"{name} is not in it, though its database names it" for name in manifest.references]
        missing = [line for name, line in zip(manifest.references, missing, strict=True) if name not in manifest.files]
        for sentence in [*wrong, *missing][:MAX_NAMED]:
            self.stderr.write(sentence)
        if wrong:
            raise CommandError(f"{backup} is damaged: {len(wrong):,} files. Use an earlier backup, and take another.")
        self.stdout.write(f"{backup} is whole, as of {manifest.made_at}.")


@contextmanager
def byte_progress() -> Iterator[Progress]:
    """Bytes that were read or written, for who watches."""
    with tqdm(unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        yield lambda size: bar.update(size) and None


@contextmanager
def command_errors() -> Iterator[None]:
    """Errors that a person can do something about, as what the command ends with."""
    try:
        yield
    except TutelageError as error:
        raise CommandError(error.message) from error
    except OSError as error:
        raise CommandError(f"{error.filename or 'The disk'}: {error.strerror}.") from error


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
