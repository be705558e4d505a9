"""manage.py add_model PROJECT SOURCE: bring a model from the Hugging Face hub, a folder or a file into a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.contract import ChatTemplate, is_model_file
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
from webapp.runs.uploads import take_file


class Command(BaseCommand):
    help = (
        "Add a language model, reward model or adapter to a project: from the Hugging Face hub (org/model, or "
        "org/model/file.gguf), from a folder below those that MODEL_FOLDERS lists, or from a .zip, .tar, .tar.gz or "
        ".gguf file, wherever it is. A training worker fetches and checks it; this waits until it is there. Ctrl-C "
        "stops it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_project_argument(parser)
        parser.add_argument("source", help="org/model on the Hugging Face hub, a folder, or a file")
        parser.add_argument("--revision", default="", help="branch, tag or commit on the hub; default: the newest")
        parser.add_argument("--name", default="", help="what the project calls it; default: the last part of its name")
        parser.add_argument(
            "--template",
            choices=get_args(ChatTemplate),
            default="keep",
            help="the chat template that a base model gets, which SFT teaches; family: that of its own family",
        )
        add_person_argument(parser)
        parser.add_argument("--no-wait", action="store_true", help="return at once, with the run's number")

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_old_database()
        project = project_named(options["project"])
        by, file = manager_of(project, options["by"]), Path(options["source"])
        try:
            is_own_file = is_model_file(file.name) and file.is_file()
            upload = take_file(project=project, by=by, path=file) if is_own_file else None
            run = launch_run(
                project=project,
                stage="add",
                by=by,
                name=options["name"],
                base_name="" if upload else options["source"],
                upload=upload,
                config={"revision": options["revision"], "chat_template": options["template"]},
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
