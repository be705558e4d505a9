"""manage.py prepare: what must be done before the site starts, and what the supervisor then says."""

from __future__ import annotations

import json
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from webapp.accounts.models import User


class Command(BaseCommand):
    help = "Migrate the database, collect static files, and print as JSON whether there is an administrator."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        executor = MigrationExecutor(connection)
        # Looking costs a tenth of what the command does, and at most starts there is nothing to do.
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", interactive=False, skip_checks=True)
        call_command("collectstatic", interactive=False, verbosity=0, skip_checks=True)
        print(json.dumps({"has_admin": User.objects.filter(is_superuser=True).exists()}))
