"""Blind comparisons by API."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from annotations.models import Prompt
from tests import factories
from tests.comparisons.conftest import compared_run, judge_next
from webapp.accounts.models import Project, User

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_folders")]
JSON: dict[str, Any] = {"content_type": "application/json"}
ADDRESS = "/api/v1/projects/kite/comparisons/"


def test_a_runs_replies_are_judged_stopped_and_measured(client: Client, project: Project, mo: User, ann: User) -> None:
    client.force_login(mo)
    run = compared_run(project)
    response = client.post(ADDRESS, {"run": run.pk, "overlap": 1}, **JSON)
    assert response.status_code == 201, response.content
    made = response.json()
    assert (made["state"], made["wanted"], made["given"], made["result"]) == ("judging", 4, 0, {})
    assert (made["model"], made["baseline"]) == (run.base_id, run.baseline_id)
    judge_next(project, ann, 1)
    address = f"/api/v1/comparisons/{made['id']}/"
    assert client.get(address).json()["given"] == 1
    stopped = client.post(f"{address}stop/", **JSON).json()
    assert (stopped["state"], stopped["result"]["judged"], stopped["result"]["win_rate"]["value"]) == ("stopped", 1, 1)
    assert client.post(f"{address}continue/", **JSON).json()["state"] == "judging"
    assert len(client.get(ADDRESS).json()["results"]) == 1


def test_two_models_reply_first(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    model, baseline = factories.model_version(project), factories.model_version(project)
    factories.prompt(project, split=Prompt.Split.HELDOUT)
    body = {"model": model.pk, "baseline": baseline.pk, "number": 3}
    made = client.post(ADDRESS, body, **JSON).json()
    assert (made["state"], made["pairs"]) == ("sampling", 0)
    assert made["run"] == project.runs.get().pk
    for wrong, field in (({"model": model.pk}, "baseline"), (body | {"baseline": 0}, "baseline"), ({"run": 0}, "run")):
        refused = client.post(ADDRESS, wrong, **JSON)
        assert refused.status_code == 400
        assert field in refused.content.decode()
