"""manage.py export_model PROJECT MODEL: write a model as files that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.contract import SPECS
from webapp.accounts.models import Project
from webapp.commands import (
    add_person_argument,
    add_project_argument,
    manager_of,
    project_named,
    refuse_old_database,
)
from webapp.errors import TutelageError
from webapp.registry.artefacts import fetch_file
from webapp.registry.models import ModelVersion
from webapp.runs.management.waiting import wait_for
from webapp.runs.models import Run
from webapp.runs.services import launch_run

FORMATS = get_args(SPECS["export"].settings.model_fields["format"].annotation)


class Command(BaseCommand):
    help = (
        "Write a model as a Hugging Face folder, an adapter alone, or a GGUF file with an Ollama Modelfile. A training "
        "worker writes it and checks its answers; this waits until it is there. Ctrl-C stops it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_project_argument(parser)
        parser.add_argument("model", type=int, help="the model's number in the project")
        parser.add_argument("--format", default="bf16", choices=FORMATS)
        parser.add_argument("--name", default="", help="what the GGUF file is called; default: model")
        parser.add_argument("--to", type=Path, help="also copy the files into this folder")
        parser.add_argument("--push", default="", metavar="OWNER/NAME", help="also push to this repository of the hub")
        parser.add_argument("--public", action="store_true", help="if --push makes the repository, everybody sees it")
        add_person_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_old_database()
        project = project_named(options["project"])
        target: Path | None = options["to"]
        if target is not None and target.exists() and any(target.iterdir()):
            raise CommandError(f"{target} is not empty. Name a new folder.")
        try:
            run = launch_run(
                project=project,
                stage="export",
                by=manager_of(project, options["by"]),
                base=model_numbered(project, options["model"]),
                config={
                    "format": options["format"],
                    "name": options["name"],
                    "push_to": options["push"],
                    "public": options["public"],
                },
            )
        except TutelageError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"Run {run.number} exports it.")
        wait_for(run, self.stderr)
        if run.state != Run.State.SUCCEEDED:
            raise CommandError(run.error or f"Run {run.number} was stopped.")
        self.stdout.write("\n".join(run.result["model"]["checks"]))
        if pushed := run.result["model"].get("hub"):
            self.stdout.write(f"Pushed to {pushed}.")
        if target is not None:
            copy_files(run, target)
            self.stdout.write(f"Copied {len(run.outputs)} files to {target}.")


def model_numbered(project: Project, number: int) -> ModelVersion:
    model = ModelVersion.objects.filter(project=project, number=number).first()
    if model is None:
        raise CommandError(f"{project.name} has no model {number}. The Models page lists them.")
    return model


def copy_files(run: Run, target: Path) -> None:
    for name, address in run.outputs.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        fetch_file(address, target / name)
