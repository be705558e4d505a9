"""Backups of an installation while it runs: the database as of one moment, and every file it names."""
