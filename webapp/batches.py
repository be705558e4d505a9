"""Reading many rows without holding them all, and without a cursor on the server that somebody must close."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

from django.db.models import Model, QuerySet

BATCH_SIZE: Final = 1000
M = TypeVar("M", bound=Model)


def batches_of(rows: QuerySet[M], size: int = BATCH_SIZE) -> Iterator[list[M]]:
    """The rows in the order of their keys, as lists of at most `size`, each read by a query of its own.

    The reader may stop anywhere, by an exception too: nothing stays open. Rows that are added meanwhile are seen where
    their key is above those already read. See docs/decisions/reading-in-batches.md.
    """
    ordered = rows.order_by("pk")
    batch = list(ordered[:size])
    while batch:
        yield batch
        if len(batch) < size:
            return
        batch = list(ordered.filter(pk__gt=batch[-1].pk)[:size])


def rows_in_batches(rows: QuerySet[M], size: int = BATCH_SIZE) -> Iterator[M]:
    """As `batches_of`, row by row."""
    for batch in batches_of(rows, size):
        yield from batch
