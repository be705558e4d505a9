"""manage.py prepare: what must be done to the database before the site starts, and what the supervisor then tells."""

from __future__ import annotations

import json
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from webapp.accounts.models import User


class Command(BaseCommand):
    help = "Migrate the database, and print as JSON whether the installation has an administrator."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=1)
        print(json.dumps({"has_admin": User.objects.filter(is_superuser=True).exists()}))
