"""The tables are what the models say, and every app's migrations end in one."""

from __future__ import annotations

from django.core.management import call_command


def test_no_migration_is_missing_and_none_are_in_conflict(db: None) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
