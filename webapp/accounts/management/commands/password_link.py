"""manage.py password_link ADDRESS: a way in for somebody who forgot their password, the administrator too."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.accounts.models import User
from webapp.accounts.passwords import password_link
from webapp.errors import TutelageError


class Command(BaseCommand):
    help = "Print a link with which the person of this address sets a new password, once and within 24 hours."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email__iexact=options["address"]).first()
        if user is None:
            raise CommandError(f"There is no account with the address {options['address']}.")
        try:
            self.stdout.write(settings.SITE_URL.rstrip("/") + password_link(user=user, by=None))
        except TutelageError as error:
            raise CommandError(error.message) from error
