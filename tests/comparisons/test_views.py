"""Pages of blind comparisons, as a manager and as an annotator use them."""

from __future__ import annotations

import json

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotations.models import Prompt
from tests import factories
from tests.comparisons.conftest import REPLIES, compared_run, comparison_of, judge_next
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.comparisons.models import Comparison

pytestmark = pytest.mark.django_db(transaction=True)


def page_of(client: Client, address: str) -> str:
    return " ".join(client.get(address).content.decode().split())


def test_a_comparison_begins_on_a_models_page_with_its_parent(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    parent, other = factories.model_version(project, name="before"), factories.model_version(project, name="other")
    model = factories.model_version(project, name="after", parent=parent)
    assert f"/models/{model.pk}/compare/" in page_of(client, f"/models/{model.pk}/")
    page = page_of(client, f"/models/{model.pk}/compare/")
    assert f'<option value="{parent.pk}" selected>before' in page
    form = {"baseline": parent.pk, "prompts": "typed", "number": "50", "typed": "", "overlap": "2"}
    response = client.post(f"/models/{model.pk}/compare/", form)
    assert response.status_code == 400
    assert "write 1 to 2,000 prompts." in response.content.decode()
    response = client.post(f"/models/{model.pk}/compare/", form | {"typed": "Why?\nHow?", "baseline": other.pk})
    comparison = Comparison.objects.get()
    assert response.headers["Location"] == f"/comparisons/{comparison.pk}/"
    assert (comparison.baseline, comparison.overlap, comparison.for_training) == (other, 2, False)
    assert Prompt.objects.filter(split=Prompt.Split.HELDOUT).count() == 2
    assert "Sampling replies" in page_of(client, f"/comparisons/{comparison.pk}/")
    assert "after against other" in page_of(client, "/projects/kite/comparisons/")


def test_a_lone_model_has_nothing_to_be_compared_with(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    model = factories.model_version(project)
    assert "Nothing to compare it with" in page_of(client, f"/models/{model.pk}/compare/")


def test_nobody_sees_the_result_before_the_end(client: Client, project: Project, mo: User, ann: User) -> None:
    client.force_login(mo)
    comparison = comparison_of(project, REPLIES[:2])
    judge_next(project, ann, 1)
    address = f"/comparisons/{comparison.pk}/"
    page = page_of(client, address)
    assert "1 of 2 judgments" in page
    assert "new wins" not in page
    assert "good answer" not in page
    assert client.get(f"{address}download/").status_code == 409
    assert "HX-Refresh" not in client.get(f"{address}status/").headers
    judge_next(project, ann, 0)
    assert client.get(f"{address}status/").headers["HX-Refresh"] == "true"
    page = page_of(client, address)
    assert "<dt>new wins</dt><dd> 75.0" in page
    assert "A good answer to number" in page
    assert "new is better" in page
    assert "Ann" in page
    content = b"".join(existing(client.get(f"{address}download/").streaming_content))  # type: ignore[attr-defined]
    rows = [json.loads(line) for line in content.splitlines()]
    assert sorted(row["win"] for row in rows) == [0.5, 1.0]
    assert rows[0]["models"] == ["new", "old"]
    assert rows[0]["judgments"][0]["annotator"] == f"person:{ann.pk}"


def test_annotators_judge_without_names(client: Client, project: Project, ann: User) -> None:
    client.force_login(ann)
    comparison = comparison_of(project, REPLIES[:1])
    page = page_of(client, "/label/?project=kite")
    assert "Rank 2 replies" in page
    assert "Bad 0." in page
    assert "against" not in page
    assert client.get(f"/comparisons/{comparison.pk}/").status_code == 403


def test_stop_and_continue_are_on_the_page(client: Client, project: Project, mo: User, ann: User) -> None:
    client.force_login(mo)
    comparison = comparison_of(project, REPLIES[:2])
    address = f"/comparisons/{comparison.pk}/"
    client.post(f"{address}stop/")
    page = page_of(client, address)
    assert "Result so far" in page
    assert "Nobody has judged a pair." in page
    client.post(f"{address}continue/")
    assert "With people" in page_of(client, address)


def test_an_evaluate_run_offers_its_replies_to_people(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    run = compared_run(project)
    address = f"/runs/{run.pk}/compare-blind/"
    assert address in page_of(client, f"/runs/{run.pk}/")
    assert "Have people compare its replies blind" in page_of(client, address)
    assert client.post(address, {"overlap": "0"}).status_code == 409
    response = client.post(address, {"overlap": "1", "for_training": "on"})
    comparison = Comparison.objects.get()
    assert comparison.for_training
    assert response.headers["Location"] == f"/comparisons/{comparison.pk}/"
    assert "Open the comparison" in page_of(client, address)


def test_the_pages_ask_a_bounded_number_of_queries(client: Client, project: Project, mo: User, ann: User) -> None:
    client.force_login(mo)

    def counts() -> list[int]:
        comparison = comparison_of(project, REPLIES)
        for _ in REPLIES:
            judge_next(project, ann, 1)
        taken = []
        for address in ("/projects/kite/comparisons/", f"/comparisons/{comparison.pk}/"):
            with CaptureQueriesContext(connection) as captured:
                client.get(address)
            taken.append(len(captured.captured_queries))
        return taken

    few = counts()
    many = [counts() for _ in range(3)][-1]
    assert many[0] <= few[0] <= 10
    assert many[1] <= few[1] <= 20
