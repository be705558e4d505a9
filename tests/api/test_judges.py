"""Judges by API."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from annotations.models import Task
from tests import factories
from tests.judges.conftest import endpoint_of, evaluate_run  # noqa: F401 (a fixture)
from tests.judges.fake import prefers
from tests.judges.test_jobs import PAIRS, Start, finish
from webapp.accounts.models import Project, User
from webapp.judges.models import Judge, JudgeJob

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_folders")]


def test_a_judge_is_added_asked_and_archived(
    client: Client,
    project: Project,
    mo: User,
    ann: User,
    endpoint_of: Start,  # noqa: F811
) -> None:
    client.force_login(mo)
    endpoint, run = endpoint_of(prefers(len)), evaluate_run(project, PAIRS)
    json: dict[str, Any] = {"content_type": "application/json"}
    body = {
        "name": "Big",
        "model": "big",
        "key": "sk-secret",
        "address": endpoint.address,
        "price_in": 1,
        "price_out": 1,
    }
    response = client.post("/api/v1/projects/kite/judges/", body, **json)
    assert response.status_code == 201
    judge = response.json()
    assert judge["has_key"]
    assert "sk-secret" not in response.content.decode()
    job = client.post(f"/api/v1/judges/{judge['id']}/jobs/", {"kind": "compare", "run": run.pk}, **json).json()
    assert job["state"] == "queued"
    finish(JudgeJob.objects.get())
    done = client.get(f"/api/v1/judge-jobs/{job['id']}/").json()
    assert (done["state"], done["answered"], done["result"]["wins"]) == ("done", 12, 6)
    assert done["cost"] == pytest.approx(12 * 110 / 1e6)
    factories.ranking(project, ann, task=factories.task(project, Task.Kind.RANK, replies=2))
    for wanted in ({"kind": "agreement"}, {"kind": "try", "prompt": "Why?", "replies": ["So.", "Because."]}):
        job = client.post(f"/api/v1/judges/{judge['id']}/jobs/", wanted, **json).json()
        stopped = client.post(f"/api/v1/judge-jobs/{job['id']}/stop/", **json).json()
        assert stopped["state"] == "queued"
        assert finish(JudgeJob.objects.get(pk=job["id"])).state == "stopped"
        assert client.post(f"/api/v1/judge-jobs/{job['id']}/continue/", **json).json()["state"] == "queued"
        assert finish(JudgeJob.objects.get(pk=job["id"])).state == "done"
    changed = {"name": "Bigger", "model": "big", "address": endpoint.address}
    assert client.put(f"/api/v1/judges/{judge['id']}/", changed, **json).json()["has_key"]
    assert client.delete(f"/api/v1/judges/{judge['id']}/").status_code == 204
    assert Judge.objects.get().archived_at is not None
    assert len(client.get("/api/v1/projects/kite/judges/").json()["results"]) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x", "model": "big", "address": "https://10.0.0.1/v1"}, "address"),
        ({"name": "x", "own_model": 999}, "own_model"),
        ({"name": "x", "address": "https://example.org/v1"}, "model"),
        ({"model": "big", "address": "https://example.org/v1"}, "name"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(
    client: Client, project: Project, mo: User, body: dict[str, object], field: str
) -> None:
    client.force_login(mo)
    response = client.post("/api/v1/projects/kite/judges/", body, content_type="application/json")
    assert response.status_code == 400
    assert field in response.content.decode()
    assert not Judge.objects.exists()
