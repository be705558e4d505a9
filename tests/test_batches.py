"""Many rows are read without holding them all, and without anything that a garbage collector could hang on."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from django.db import connection

from annotations.export import ranking_rows
from annotations.models import Ranking
from tests import factories
from webapp.accounts.models import Project, User
from webapp.batches import batches_of, rows_in_batches

SECONDS = 20


def test_rows_come_in_the_order_of_their_keys_and_all_of_them(db: None) -> None:
    people = [factories.person() for _ in range(7)]
    assert list(rows_in_batches(User.objects.order_by("-email"), 3)) == people
    assert [len(batch) for batch in batches_of(User.objects.all(), 3)] == [3, 3, 1]


def test_no_query_more_than_needed(db: None, django_assert_num_queries: Any) -> None:
    for _ in range(7):
        factories.person()
    with django_assert_num_queries(3):
        list(batches_of(User.objects.all(), 3))


def collect_a_generator_during_a_query(rows: Any) -> None:
    """As an exception's reference cycle does: the generator ends when the collector runs, in the middle of a query."""
    gc.disable()
    try:
        kept: list[Any] = [iter(rows)]
        next(kept[0])
        kept.append(kept)
        del kept, rows
        with connection.connection.lock:
            gc.collect()
    finally:
        gc.enable()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "read",
    [
        lambda: Ranking.objects.iterator(1),
        lambda: rows_in_batches(Ranking.objects.all(), 1),
        lambda: ranking_rows(Project.objects.get()),
    ],
    ids=["iterator", "batches", "export"],
)
def test_a_reader_that_is_left_half_way_never_hangs_its_process(read: Any, project: Project, ann: User) -> None:
    for _ in range(3):
        factories.ranking(project, ann)
    ended = []

    def work() -> None:
        try:
            collect_a_generator_during_a_query(read())
            ended.append(True)
        finally:
            connection.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive(), "the collector waits for the lock that its own thread holds"
    assert ended
