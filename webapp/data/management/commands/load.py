"""manage.py load PROJECT FILE…: bring preferences, demonstrations, prompts and text into a project."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Self

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from webapp.commands import (
    add_person_argument,
    add_project_argument,
    manager_of,
    project_named,
    refuse_old_database,
)
from webapp.data.loading import KINDS, ImportReport, load
from webapp.errors import TutelageError


class Command(BaseCommand):
    help = (
        "Load rankings, judgments, demonstrations, prompts and text into a project from JSONL, JSON, CSV, TSV, "
        "Parquet, Arrow, text or HTML files, plain, packed (gz, zst, bz2, xz) or in a zip archive. All of it is "
        "loaded, or nothing; loading the same rows again adds nothing. docs/imports.md lists what is read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_project_argument(parser)
        parser.add_argument("files", nargs="+", type=Path)
        parser.add_argument("--as", dest="kind", choices=list(KINDS), help="take only this; default: whatever is there")
        add_person_argument(parser)
        parser.add_argument("--corpus", default="", help="corpus for documents; default: the file's name")
        parser.add_argument("--licence", default="", help="licence of a new corpus")
        parser.add_argument("--open-tasks", action="store_true", help="ask people to reply to the prompts")
        parser.add_argument(
            "--skip-bad",
            action="store_true",
            help="leave out rows that cannot be read, and only those, instead of loading nothing",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="read, report, show two rows of each kind, and load nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_old_database()
        project = project_named(options["project"])
        files: list[Path] = options["files"]
        names = ("kind", "corpus", "licence", "open_tasks", "skip_bad", "dry_run")
        try:
            with Bar(files) as bar:
                report = load(
                    project=project,
                    by=manager_of(project, options["by"]),
                    paths=files,
                    on_position=bar.move,
                    **{name: options[name] for name in names},
                )
        except TutelageError as error:
            raise CommandError(error.message) from error
        self.show(report, dry_run=options["dry_run"])

    def show(self, report: ImportReport, *, dry_run: bool) -> None:
        for kind, row_count in sorted(report.found.items()):
            added = (
                "would be loaded"
                if dry_run
                else f"{report.added[kind]:,} new, {row_count - report.added[kind]:,} already imported"
            )
            self.stdout.write(f"{kind}: {row_count:,} found, {added}")
        if not report.found:
            self.stdout.write("Nothing to load was found.")
        for reason, reason_rows in sorted(report.left_out.items(), key=lambda pair: -pair[1].count):
            ellipsis = ", …" if reason_rows.count > len(reason_rows.places) else ""
            self.stdout.write(f"left out {reason_rows.count:,}: {reason} ({', '.join(reason_rows.places)}{ellipsis})")
        for text, noted in report.notes.items():
            self.stdout.write(f"note: {text} ({noted.count:,}: {', '.join(noted.places)})")
        if report.unused_columns:
            columns = ", ".join(f"{name} ({count:,})" for name, count in report.unused_columns.most_common())
            self.stdout.write(f"columns that were not used: {columns}")
        if dry_run:
            self.show_samples(report)
        for error in report.errors:
            self.stderr.write(error)
        if report.error_count > len(report.errors):
            self.stderr.write(f"… and {report.error_count - len(report.errors):,} more rows that cannot be read")

    def show_samples(self, report: ImportReport) -> None:
        """The first rows of each kind, as they will be read."""
        for kind, samples in sorted(report.samples.items()):
            for sample in samples:
                fields = {name: value for name, value in sample.items() if name != "place"}
                self.stdout.write(f"{kind}, {sample['place']}: {json.dumps(fields, ensure_ascii=False)}")


class Bar:
    """Progress over the bytes of several files."""

    def __init__(self, files: list[Path]) -> None:
        self.before: dict[Path, int] = {}
        total = 0
        for path in files:
            if not path.is_file():
                raise CommandError(f"{path}: there is no such file.")
            self.before[path] = total
            total += path.stat().st_size
        self.bar = tqdm(total=total, unit="B", unit_scale=True, disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self.bar.update(self.bar.total - self.bar.n)
        self.bar.close()

    def move(self, path: Path, position: int) -> None:
        self.bar.set_description(path.name[:30])
        self.bar.update(self.before[path] + position - self.bar.n)
