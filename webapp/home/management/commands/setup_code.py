"""manage.py setup_code: the link by which the first account is made."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from webapp.accounts.selectors import has_superuser
from webapp.setup_code import setup_code


class Command(BaseCommand):
    help = "Print the link by which the first account, which runs the installation, is made."

    def handle(self, *args: Any, **options: Any) -> None:
        if has_superuser():
            raise CommandError("This installation already has an administrator. Ask them for an invitation.")
        self.stdout.write(f"{settings.SITE_URL.rstrip('/')}/accounts/signup/?code={setup_code()}")
