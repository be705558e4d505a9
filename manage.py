#!/usr/bin/env python
"""Tutelage's command line: `manage.py up` runs everything, `manage.py help` lists the rest."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext

from django.core.management import execute_from_command_line

from webapp.home_folder import keep_private
from webapp.supervisor import CannotStart, running
from webapp.supervisor.database import database_running

# Commands that work with workers and models; without a running site they get one of their own while they run.
NEED_THE_SITE = ("demo", "add_model")
NEED_THE_DATABASE = ("backup", "load")


def main(arguments: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    if arguments[1:2] != ["makemigrations"]:  # whose files are code
        keep_private()
    with what_it_needs(arguments[1:]):
        execute_from_command_line(arguments)


def what_it_needs(arguments: list[str]) -> AbstractContextManager[object]:
    """The servers that a command speaks with, while it lasts."""
    if "--help" in arguments or "--check" in arguments:
        return nullcontext()
    if arguments and arguments[0] in NEED_THE_SITE:
        return running()
    if arguments and arguments[0] in NEED_THE_DATABASE:
        return database_running()
    return nullcontext()


def run() -> None:
    """The command `tutelage`, where Tutelage is installed as a package."""
    try:
        main(sys.argv)
    except CannotStart as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run()
