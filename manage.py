#!/usr/bin/env python
"""Tutelage's command line: `manage.py up` runs everything, `manage.py help` lists the rest."""

import os
import sys
from contextlib import nullcontext

from django.core.management import execute_from_command_line

from webapp.home_folder import keep_private
from webapp.supervisor import CannotStart, running

# Commands that work with workers and models; without a running site they get one of their own for as long as they last.
NEED_THE_SITE = ("demo", "load")


def main(arguments: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    if arguments[1:2] != ["makemigrations"]:  # whose files are code
        keep_private()
    needed = len(arguments) > 1 and arguments[1] in NEED_THE_SITE and "--help" not in arguments
    with running() if needed else nullcontext():
        execute_from_command_line(arguments)


if __name__ == "__main__":
    try:
        main(sys.argv)
    except CannotStart as error:
        sys.exit(str(error))
