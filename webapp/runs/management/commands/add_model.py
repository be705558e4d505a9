"""manage.py add_model PROJECT SOURCE: bring a model from the Hugging Face hub or a folder into a project."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.commands import (
    add_person_argument,
    add_project_argument,
    manager_of,
    project_named,
    refuse_old_database,
)
from webapp.errors import TutelageError
from webapp.runs.management.waiting import wait_for
from webapp.runs.services import launch_run


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
        if options["no_wait"]:
            return
        wait_for(run, self.stderr)
        if run.output is None:
            raise CommandError(run.error or f"Run {run.number} was stopped.")
        self.stdout.write(f"Added {run.output.name} as model {run.output.number}. {run.output.note}")
