"""Locks that PostgreSQL holds for one process, and gives back when that process dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import InterfaceError, OperationalError, connection


@contextmanager
def lock_alone(namespace: int, key: int) -> Iterator[bool]:
    """True for one process at a time, False for the others. The lock belongs to the database session, so it goes with
    a killed process."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [namespace, key])
        mine = bool(cursor.fetchone()[0])
    try:
        yield mine
    finally:
        if mine:
            unlock(namespace, key)


def unlock(namespace: int, key: int) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [namespace, key])
    except (OperationalError, InterfaceError):
        connection.close()  # the session is gone, and the lock with it
