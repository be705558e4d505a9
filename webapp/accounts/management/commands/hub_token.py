"""manage.py hub_token ADDRESS: store or delete a person's token of the Hugging Face hub."""

from __future__ import annotations

import getpass
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.views.decorators.debug import sensitive_variables

from webapp.accounts.hub import remove_hub_token, set_hub_token
from webapp.accounts.models import HubToken, User
from webapp.errors import TutelageError


class Command(BaseCommand):
    help = (
        "Store the Hugging Face token of the person with this address, encrypted, in place of an earlier one. It is "
        "read from standard input or asked for, never from the command line, which others on the machine can see. It "
        "is never shown again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        ways = parser.add_mutually_exclusive_group()
        ways.add_argument("--delete", action="store_true", help="delete the token")
        ways.add_argument("--check", action="store_true", help="only say whether one is stored")

    @sensitive_variables()
    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email__iexact=options["address"]).first()
        if user is None:
            raise CommandError(f"There is no account with the address {options['address']}.")
        if options["check"]:
            stored = HubToken.objects.filter(user=user).exists()
            self.stdout.write("A token is stored." if stored else "No token is stored.")
            return
        if options["delete"]:
            remove_hub_token(user=user)
            self.stdout.write("No token is stored now.")
            return
        token = getpass.getpass("Token of the hub: ") if sys.stdin.isatty() else sys.stdin.readline()
        try:
            recognized = set_hub_token(user=user, token=token)
        except TutelageError as error:
            raise CommandError(error.message.removeprefix("token: ")) from error
        self.stdout.write(
            "Stored; the hub knows it." if recognized else "Stored. The hub could not be asked if it works."
        )
