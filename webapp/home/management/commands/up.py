"""manage.py up: everything, on this machine, until Ctrl-C."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.supervisor.folder import CannotStart
from webapp.supervisor.site import SiteOptions, run_site


class Command(BaseCommand):
    help = "Start PostgreSQL, Redis, web, workers, scheduler and model server, and keep them running until Ctrl-C."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=os.environ.get("LISTEN") or SiteOptions.host, help="address to listen on")
        parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or SiteOptions.port))
        parser.add_argument("--any-port", action="store_true", help="take a free port where that one is taken")
        parser.add_argument(
            "--web-processes", type=int, default=int(os.environ.get("WEB_PROCESSES") or SiteOptions.web_processes)
        )

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = SiteOptions(**{name: options[name] for name in ("host", "port", "any_port", "web_processes")})
        try:
            run_site(chosen, lambda line: print(line, flush=True))
        except CannotStart as error:
            raise CommandError(str(error)) from error
