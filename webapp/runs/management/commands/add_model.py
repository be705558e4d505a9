"""manage.py add_model PROJECT SOURCE: bring a model from the Hugging Face hub or a folder into a project."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.commands import (
    add_person_argument,
    add_project_argument,
    manager_of,
    project_named,
    refuse_old_database,
)
from webapp.errors import TutelageError
from webapp.runs.models import Run
from webapp.runs.services import launch_run, request_stop

LOOK_EVERY: Final = 1.0  # seconds


class Command(BaseCommand):
    help = (
        "Add a language model, reward model or adapter to a project: from the Hugging Face hub (org/model), or from a "
        "folder below those that MODEL_FOLDERS lists. A training worker fetches and checks it; this waits until it is "
        "there. Ctrl-C stops it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_project_argument(parser)
        parser.add_argument("source", help="org/model on the Hugging Face hub, or a folder")
        parser.add_argument("--revision", default="", help="branch, tag or commit on the hub; default: the newest")
        parser.add_argument("--name", default="", help="what the project calls it; default: the last part of its name")
        parser.add_argument(
            "--chatml", action="store_true", help="give a base model ChatML's template and tokens, which SFT teaches"
        )
        add_person_argument(parser)
        parser.add_argument("--no-wait", action="store_true", help="return at once, with the run's number")

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_old_database()
        project = project_named(options["project"])
        template = "chatml" if options["chatml"] else "keep"
        try:
            run = launch_run(
                project=project,
                stage="add",
                by=manager_of(project, options["by"]),
                name=options["name"],
                base_name=options["source"],
                config={"revision": options["revision"], "chat_template": template},
            )
        except TutelageError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"Run {run.number} adds {run.name}.")
        if not options["no_wait"]:
            self.wait_for(run)

    def wait_for(self, run: Run) -> None:
        try:
            while run.state in Run.ACTIVE:
                self.show(run)
                pause()
                run.refresh_from_db()
        except KeyboardInterrupt:
            request_stop(run=run, by=run.created_by)
            raise CommandError(f"Asked run {run.number} to stop.") from None
        if run.output is None:
            raise CommandError(run.error or f"Run {run.number} was stopped.")
        self.stdout.write(f"Added {run.output.name} as model {run.output.number}. {run.output.note}")

    def show(self, run: Run) -> None:
        if sys.stderr.isatty():
            far = f" {run.phase} {run.step} of {run.total}" if run.total else ""
            self.stderr.write(f"\r{run.get_state_display()}{far}  ", ending="")


def pause() -> None:
    time.sleep(LOOK_EVERY)
