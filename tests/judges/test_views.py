"""Pages of judges, as a manager uses them."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotations.models import Ranking, Task
from tests import factories
from tests.judges.conftest import evaluate_run, judge_at
from tests.judges.fake import FakeEndpoint
from tests.judges.test_jobs import PAIRS, finish
from webapp.accounts.models import Project, User
from webapp.judges.models import Judge, JudgeJob
from webapp.judges.services import start_try

pytestmark = pytest.mark.django_db(transaction=True)
FORM = {"name": "Big", "mode": "pairwise", "model": "big", "parallel": "2", "timeout": "60", "max_tokens": "500"}


def test_a_judge_is_added_tried_and_measured(
    client: Client, project: Project, mo: User, ann: User, by_length: FakeEndpoint
) -> None:
    client.force_login(mo)
    page = client.get("/projects/kite/judges/add/").content.decode()
    assert "Be correct, be kind, be brief." in page  # the rubric begins as the guidelines
    response = client.post("/projects/kite/judges/add/", {**FORM, "address": by_length.address, "key": "sk-secret"})
    judge = Judge.objects.get()
    assert response.headers["Location"] == f"/judges/{judge.pk}/"
    factories.ranking(project, ann, task=factories.task(project, Task.Kind.RANK, replies=2))
    page = client.get(f"/judges/{judge.pk}/").content.decode()
    assert "Judge this pair now" in page
    assert "sk-secret" not in page
    response = client.post(f"/judges/{judge.pk}/try/", {"ranked": Ranking.objects.get().pk})
    job = finish(JudgeJob.objects.get())
    page = client.get(response.headers["Location"]).content.decode()
    assert "It is right." in page
    assert "People: 1 for A" in page
    client.post(f"/judges/{judge.pk}/agreement/", {"size": "10"})
    finish(JudgeJob.objects.exclude(pk=job.pk).get())
    assert "Agrees with a person" in client.get(f"/judges/{judge.pk}/").content.decode()
    assert "of comparisons" in client.get("/projects/kite/judges/").content.decode()


def test_the_list_asks_as_much_of_many_judges_as_of_one(
    client: Client, project: Project, mo: User, by_length: FakeEndpoint
) -> None:
    client.force_login(mo)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            client.get("/projects/kite/judges/")
        return len(captured.captured_queries)

    for number in range(2):
        finish(start_try(judge=judge_at(by_length, project), by=mo, prompt=f"{number}?", replies=["So.", "No."]))
    few = queries()
    for _ in range(8):
        judge_at(by_length, project)
    assert queries() <= few <= 14


def test_archived_judges_are_linked_where_there_are_some(
    client: Client, project: Project, mo: User, by_length: FakeEndpoint
) -> None:
    client.force_login(mo)
    judge = judge_at(by_length, project)
    judge_at(by_length, project, name="Small judge")
    address = "/projects/kite/judges/"
    assert "Archived judges" not in client.get(address).content.decode()
    client.post(f"/judges/{judge.pk}/archive/")
    page = client.get(address).content.decode()
    assert "Archived judges" in page
    assert "Big judge</a>" not in page
    assert "Big judge</a>" in client.get(f"{address}?archived=1").content.decode()


def test_an_address_inside_is_refused_at_its_field(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    response = client.post("/projects/kite/judges/add/", {**FORM, "address": "https://169.254.169.254/v1"})
    assert response.status_code == 400
    assert "169.254.169.254 is no public address" in response.content.decode()
    assert not Judge.objects.exists()


def test_a_comparison_shows_its_progress_and_then_its_result(
    client: Client, project: Project, mo: User, by_length: FakeEndpoint
) -> None:
    client.force_login(mo)
    judge, run = judge_at(by_length, project, price_in=1.0, price_out=1.0), evaluate_run(project, PAIRS)
    response = client.post(f"/judges/{judge.pk}/compare/", {"run": run.pk})
    address = response.headers["Location"]
    assert "Waiting for a worker" in client.get(address).content.decode()
    assert "HX-Refresh" not in client.get(f"{address}status/").headers
    job = JudgeJob.objects.get()
    client.post(f"{address}stop/")
    finish(job)
    assert client.get(f"{address}status/").headers["HX-Refresh"] == "true"
    client.post(f"{address}continue/")
    finish(job)
    page = client.get(address).content.decode()
    assert "Length-controlled" in page
    assert "12 of 12 questions answered" in page
