"""How much the pages that people open all day ask of the database: a bounded number of queries, whatever is there."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotations.models import Lease, Task
from tests import factories
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db
MANY = 12


def add_work(project: Project, author: User, number: int) -> None:
    """Open tasks of each kind, and labels that were given."""
    for index in range(number):
        prompt = factories.prompt(project, f"Question {index} of {number}?")
        factories.task(project, Task.Kind.WRITE, prompt=prompt)
        factories.task(project, Task.Kind.RANK, prompt=prompt, replies=3)
        factories.demonstration(project, author, f"Answer {index} of {number}.", prompt=prompt)
        factories.ranking(project, author, task=factories.task(project, Task.Kind.RANK, prompt=prompt, replies=3))


def queries(request: Callable[[], object]) -> int:
    """How many statements a request takes, without those that only mark nested transactions."""
    with CaptureQueriesContext(connection) as captured:
        request()
    return sum("SAVEPOINT" not in query["sql"] for query in captured.captured_queries)


PAGES = {
    "/": 31,
    "/label/": 15,
    "/label/history/": 8,
    "/chat/?project=kite": 11,
    "/projects/kite/": 9,
    "/projects/kite/data/prompts/": 9,
    "/projects/kite/data/demonstrations/": 8,
    "/projects/kite/data/rankings/": 9,
    "/projects/kite/data/tasks/": 7,
    "/projects/kite/runs/": 7,
    "/projects/kite/models/": 9,
}


@pytest.mark.parametrize(("address", "most"), PAGES.items())
def test_a_page_asks_no_more_where_there_is_more(
    client: Client, project: Project, mo: User, ann: User, address: str, most: int
) -> None:
    client.force_login(mo)
    add_work(project, ann, 2)
    client.get(address, follow=True)  # the first visit takes the task
    few = queries(lambda: client.get(address))
    add_work(project, ann, MANY)
    many = queries(lambda: client.get(address))
    assert many <= few, "the number of queries grows with the number of rows"
    assert many <= most, (few, many)


@pytest.mark.parametrize("kind", [Task.Kind.WRITE, Task.Kind.RANK])
def test_a_submission_and_the_next_task_take_few_queries(
    client: Client, project: Project, ann: User, ben: User, kind: Task.Kind
) -> None:
    client.force_login(ann)
    add_work(project, ben, MANY)
    page = client.get(f"/label/?kind={kind.value}", follow=True).content.decode()
    lease = Lease.objects.get(person=ann, outcome=Lease.Outcome.HELD)
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    ranks = {f"rank_{reply}": "1" for reply in lease.order_shown}
    answer = {"token": token[1], "text": "It flies.", **ranks}

    def submit() -> None:
        reply = client.post(f"/label/leases/{lease.pk}/submit/", answer, headers={"HX-Request": "true"})
        assert reply.status_code == 200, reply.content

    assert queries(submit) <= 26
