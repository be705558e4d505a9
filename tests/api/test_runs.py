"""Snapshots, runs and models by machine: what is made, what is refused and in which words."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests import factories
from tests.browser.scripted import scripted_server
from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot
from webapp.registry.models import ModelVersion
from webapp.runs.models import Metric, Run, RunEvent

pytestmark = pytest.mark.django_db
RUNS, SNAPSHOTS, MODELS = (f"/api/v1/projects/kite/{name}/" for name in ("runs", "snapshots", "models"))


@pytest.fixture(autouse=True)
def places(settings: Any, tmp_path: Path) -> None:
    settings.ARTEFACTS_URL = f"file://{tmp_path}/artefacts"
    settings.RUNS_FOLDER = tmp_path / "runs"


@pytest.fixture
def rankings(project: Project) -> Snapshot:
    return factories.snapshot(project, Snapshot.Kind.RANKINGS, counts={"train": 30, "heldout": 5, "characters": 900})


@pytest.fixture
def run(project: Project) -> Run:
    return factories.run(project, state=Run.State.RUNNING)


def test_a_snapshot_is_made_with_filters(client_of: Any, mo: User, ann: User, project: Project) -> None:
    factories.prompt(project, "one")
    second = factories.prompt(project, "two")
    body = {"kind": "prompts", "name": "Second", "filters": {"ids": [second.pk], "limit": 5}}
    made = client_of(mo).post(SNAPSHOTS, body, format="json")
    assert made.status_code == 201, made.content
    assert made.json()["counts"]["train"] == 1
    assert made.json()["filters"] == {"ids": [second.pk], "limit": 5}
    assert [row["name"] for row in client_of(mo).get(SNAPSHOTS).json()["results"]] == ["Second"]
    assert client_of(ann).post(SNAPSHOTS, body, format="json").status_code == 403


def test_a_snapshot_of_nothing_says_what_to_do(client_of: Any, mo: User, project: Project) -> None:
    answer = client_of(mo).post(SNAPSHOTS, {"kind": "rankings"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_rows")


@pytest.mark.parametrize(
    ("filters", "field"),
    [({"limit": "a"}, "limit"), ({"ids": 5}, "ids"), ({"ids": [[1]]}, "ids"), ({"corpora": ["x"]}, "corpora"),
     ({"heldout_limit": "z"}, "heldout_limit"), ({"split": "both"}, "split"), ({"color": "red"}, "color")],
)  # fmt: skip
def test_a_filter_that_will_not_do_is_named(
    client_of: Any, mo: User, project: Project, filters: Any, field: Any
) -> None:
    factories.prompt(project)
    answer = client_of(mo).post(SNAPSHOTS, {"kind": "prompts", "filters": filters}, format="json")
    assert answer.status_code == 400
    assert list(answer.json()["fields"]["filters"]) == [field]
    assert answer.json()["message"].startswith(f"filters.{field}")


def test_a_corpus_of_another_project_is_not_there(client_of: Any, mo: User, project: Project) -> None:
    foreign = factories.corpus(factories.project(name="Crane"))
    body = {"kind": "documents", "filters": {"corpora": [foreign.pk]}}
    answer = client_of(mo).post(SNAPSHOTS, body, format="json")
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["filters.corpora"])


def test_a_run_is_launched_and_found(client_of: Any, mo: User, project: Project, rankings: Any) -> None:
    base = factories.model_version(project)
    body = {"stage": "reward", "base": base.pk, "snapshots": [rankings.pk], "config": {"epochs": 2}}
    made = client_of(mo).post(RUNS, body, format="json")
    assert made.status_code == 201, made.content
    assert (made.json()["state"], made.json()["config"]["epochs"]) == ("queued", 2.0)
    again = client_of(mo).get(f"/api/v1/runs/{made.json()['id']}/").json()
    assert again["name"] == "reward 1"
    assert [row["id"] for row in client_of(mo).get(RUNS, {"stage": "reward"}).json()["results"]] == [again["id"]]
    assert client_of(mo).get(RUNS, {"state": "succeeded"}).json()["results"] == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"stage": "serve"}, "stage: "),
        ({"config": {"epochs": -1}}, "epochs"),
        ({"config": {"nonesuch": 1}}, "nonesuch"),
        ({"config": [1]}, "config: "),
        ({"config": {"base": "/etc"}}, "base: choose the model as an input"),
        ({"base": 2**62}, "base: there is no"),
        ({"base": -1}, "base: "),
        ({"snapshots": [[1]]}, "snapshots"),
        ({"snapshots": []}, "rankings: reward cannot start without it"),
        ({"base": None, "base_name": "/etc"}, "base_name: give the name"),
        ({"base_name": "org/model"}, "base: choose a model of the project or name one"),
        ({"tokenizer": "x"}, "tokenizer: "),
    ],
)
def test_a_run_that_will_not_do_is_refused_by_the_field(
    client_of: Any, mo: User, project: Project, rankings: Any, changed: Any, said: Any
) -> None:
    base = factories.model_version(project)
    body = {"stage": "reward", "base": base.pk, "snapshots": [rankings.pk], **changed}
    answer = client_of(mo).post(RUNS, body, format="json")
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    assert not Run.objects.exists()


def test_inputs_of_another_project_are_not_there(client_of: Any, mo: User, project: Project, rankings: Any) -> None:
    other = factories.project(name="Crane")
    foreign = {"base": factories.model_version(other).pk, "snapshots": [factories.snapshot(other).pk]}
    own = {"stage": "reward", "base": factories.model_version(project).pk, "snapshots": [rankings.pk]}
    for field, value in foreign.items():
        answer = client_of(mo).post(RUNS, own | {field: value}, format="json")
        assert (answer.status_code, list(answer.json()["fields"])) == (400, [field])


def test_a_run_tells_its_metrics_and_events(client_of: Any, mo: User, run: Any) -> None:
    for step, value in ((1, 3.0), (2, 2.0)):
        Metric.objects.create(run=run, name="loss", step=step, value=value, time=datetime.now(UTC))
    RunEvent.objects.create(
        run=run, position=0, type="warning", step=1, time=datetime.now(UTC), data={"message": "hot"}
    )
    address = f"/api/v1/runs/{run.pk}/"
    assert client_of(mo).get(f"{address}metrics/").json() == {"last": {"loss": 2.0}}
    series = client_of(mo).get(f"{address}metrics/", {"name": "loss"}).json()
    assert series == {"name": "loss", "values": [[1, 3.0], [2, 2.0]]}
    (event,) = client_of(mo).get(f"{address}events/").json()["results"]
    assert (event["type"], event["data"]) == ("warning", {"message": "hot"})


def test_a_run_is_stopped_once_and_resumed(client_of: Any, mo: User, project: Project) -> None:
    run = factories.run(project, state=Run.State.QUEUED)
    stopped = client_of(mo).post(f"/api/v1/runs/{run.pk}/stop/")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "cancelled")
    again = client_of(mo).post(f"/api/v1/runs/{run.pk}/stop/")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    resumed = client_of(mo).post(f"/api/v1/runs/{run.pk}/resume/")
    assert (resumed.status_code, resumed.json()["state"]) == (200, "queued")


def test_models_are_listed_by_kind(client_of: Any, mo: User, project: Project) -> None:
    policy = factories.model_version(project)
    reward = factories.model_version(project, ModelVersion.Kind.REWARD)
    rows = client_of(mo).get(MODELS).json()["results"]
    assert [row["id"] for row in rows] == [reward.pk, policy.pk]
    assert [row["id"] for row in client_of(mo).get(MODELS, {"kind": "reward"}).json()["results"]] == [reward.pk]
    assert client_of(mo).get(MODELS, {"kind": "nonesuch"}).status_code == 400
    assert client_of(mo).get(f"/api/v1/models/{policy.pk}/").json()["served_name"] == f"kite-{policy.number}"


@pytest.mark.parametrize("part", ["", "metrics/", "events/"])
def test_a_run_is_for_its_managers(client_of: Any, ann: User, stranger: User, run: Any, part: Any) -> None:
    assert client_of(ann).get(f"/api/v1/runs/{run.pk}/{part}").status_code == 403
    hidden = client_of(stranger).get(f"/api/v1/runs/{run.pk}/{part}")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "not_found")
    assert client_of(stranger).get(f"/api/v1/runs/{2**62}/{part}").json() == hidden.json()


def test_the_last_deployment_is_rolled_back_to_none_in_words(
    client_of: Any, mo: User, ann: User, project: Project
) -> None:
    deployment = factories.deployment(project)
    address = f"/api/v1/deployments/{deployment.pk}/roll-back/"
    assert client_of(ann).post(address, {}, format="json").status_code == 403
    answer = client_of(mo).post(address, {"why": "It rambles."}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_run_is_told_with_its_outputs_and_they_are_handed_out(
    client_of: Any, mo: User, ann: User, project: Project
) -> None:
    text = '{"text": "a kite"}\n'
    run = factories.run_with_output(project, "samples.jsonl", text)
    told = client_of(mo).get(f"/api/v1/runs/{run.pk}/").json()
    assert (told["id"], told["outputs"]) == (run.pk, ["samples.jsonl"])
    address = f"/api/v1/runs/{run.pk}/outputs/"
    answer = client_of(mo).get(f"{address}samples.jsonl/")
    assert b"".join(answer.streaming_content).decode() == text
    assert client_of(mo).get(f"{address}config.json/").status_code == 404
    assert client_of(ann).get(f"{address}samples.jsonl/").status_code == 403


def test_deployments_are_listed_and_the_one_before_comes_back(
    client_of: Any, mo: User, project: Project, settings: Any, tmp_path: Path
) -> None:
    api, share = client_of(mo), {"share": 1.0}
    first, second = (factories.model_version(project, artefact=tmp_path.as_uri()) for _ in range(2))
    with scripted_server() as script:
        settings.MODEL_SERVER_URL = script.url
        for model in (first, second):
            answer = api.post(f"/api/v1/models/{model.pk}/deploy/", share, format="json")
            assert (answer.status_code, answer.json()["state"]) == (201, "live"), answer.content
        now = answer.json()["id"]
        back = api.post(f"/api/v1/deployments/{now}/roll-back/", {"why": "It rambles."}, format="json")
    assert (back.status_code, back.json()["state"], back.json()["model"]) == (200, "live", first.pk)
    rows = api.get("/api/v1/projects/kite/deployments/").json()["results"]
    assert [(row["model"], row["state"], row["ended_why"]) for row in rows[:2]] == [
        (first.pk, "live", ""),
        (second.pk, "rolled_back", "It rambles."),
    ]
