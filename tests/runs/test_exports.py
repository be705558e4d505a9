"""How long the files of exports stay, and how they go."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests import factories
from webapp.accounts.models import Project, User
from webapp.errors import BadInput, Conflict
from webapp.registry.artefacts import open_store
from webapp.registry.models import ModelVersion
from webapp.registry.services import archive_model
from webapp.runs.execution import hub_access
from webapp.runs.exports import expires_at, remove_export, remove_old_exports
from webapp.runs.models import Run
from webapp.runs.services import launch_run

pytestmark = pytest.mark.django_db(transaction=True)
FILES = {"model.safetensors": b"1" * 5000, "README.md": b"# Kite\n"}


@pytest.fixture(autouse=True)
def store(settings: Any, tmp_path: Path) -> Path:
    settings.ARTEFACTS_URL = f"file://{tmp_path}/artefacts"
    return tmp_path / "artefacts"


@pytest.fixture
def model(project: Project) -> ModelVersion:
    return factories.model_version(project, name="Kite")


@pytest.fixture
def exported(model: ModelVersion) -> Run:
    return factories.export_run(model.project, FILES, base=model)


def folder(run: Run) -> Path:
    return Path(open_store(run.outputs["README.md"])[1]).parent


def test_files_go_after_their_days_and_the_run_says_so(client: Client, ada: User, exported: Run) -> None:
    place = folder(exported)
    until = expires_at(exported)
    assert until is not None
    assert remove_old_exports(until - timedelta(seconds=1)) == 0
    assert place.exists()
    assert remove_old_exports(until + timedelta(seconds=1)) == 1
    assert not place.exists()
    client.force_login(ada)
    assert "Retry the run to make them again" in client.get(reverse("run_detail", args=[exported.pk])).text
    assert client.get(reverse("export_archive", args=[exported.pk])).status_code == 404
    assert remove_old_exports(until + timedelta(days=1)) == 0


def test_with_no_days_set_files_stay(exported: Run, settings: Any) -> None:
    settings.EXPORT_DAYS = 0
    assert expires_at(exported) is None
    assert remove_old_exports(timezone.now() + timedelta(days=10_000)) == 0


def test_files_go_with_an_archived_model(exported: Run, ada: User) -> None:
    place = folder(exported)
    assert exported.base is not None
    archive_model(model=exported.base, by=ada)
    assert remove_old_exports() == 1
    assert not place.exists()


def test_equal_files_stay_until_the_last_export_of_them_goes(exported: Run, model: ModelVersion) -> None:
    again = factories.export_run(model.project, FILES, base=model)
    place = folder(exported)
    assert folder(again) == place
    remove_export(run=exported)
    assert place.exists()
    remove_export(run=again)
    assert not place.exists()


def test_an_export_under_way_is_not_deleted(model: ModelVersion) -> None:
    run = factories.run(model.project, "export", base=model)
    with pytest.raises(Conflict, match="Stop it first"):
        remove_export(run=run)


def test_its_page_says_how_it_was_checked(client: Client, ada: User, exported: Run) -> None:
    exported.result["model"] = {"checks": ["Ten prompts were answered by the same tokens."]}
    exported.save()
    client.force_login(ada)
    page = client.get(reverse("run_detail", args=[exported.pk])).text
    assert "Ten prompts were answered by the same tokens." in page


def test_the_list_shows_sizes_and_deletes(client: Client, ada: User, exported: Run) -> None:
    client.force_login(ada)
    address = reverse("export_list", args=["kite"])
    page = client.get(address).text.replace("\xa0", " ")
    assert "They take 4.9 KB of the model storage" in page
    assert reverse("export_archive", args=[exported.pk]) in page
    client.post(reverse("export_remove", args=[exported.pk]))
    page = client.get(address).text
    assert reverse("export_archive", args=[exported.pk]) not in page
    assert "deleted " in page
    models = client.get(reverse("model_list", args=["kite"])).text
    assert reverse("run_launch", args=["kite", "export"]) + f"?base={exported.base_id}" in models


def test_the_api_starts_shows_gives_and_deletes_exports(client: Client, ada: User, exported: Run) -> None:
    client.force_login(ada)
    of_model = reverse("api_model_exports", args=[exported.base_id])
    answer = client.post(of_model, {"format": "gguf-q8_0", "name": "kite"}, content_type="application/json")
    assert answer.status_code == 201, answer.json()
    assert answer.json()["state"] == "queued"
    assert Run.objects.get(pk=answer.json()["id"]).config["format"] == "gguf-q8_0"
    refused = client.post(of_model, {"format": "gif"}, content_type="application/json")
    assert refused.status_code == 400
    assert [row["id"] for row in client.get(of_model).json()["results"]] == [answer.json()["id"], exported.pk]
    one = reverse("api_model_export", args=[exported.pk])
    shown = client.get(one).json()
    assert (shown["model"], shown["bytes"], shown["files"]) == (exported.base_id, 5007, sorted(FILES))
    assert shown["expires_at"] is not None
    file = client.get(reverse("api_model_export_file", args=[exported.pk, "README.md"]), headers={"Range": "bytes=2-"})
    assert (file.status_code, file.getvalue()) == (206, b"Kite\n")
    assert client.get(reverse("api_model_export_archive", args=[exported.pk])).getvalue()
    assert client.delete(one).status_code == 204
    assert client.get(one).json()["files"] == []


def test_a_push_needs_the_token_of_who_launches_it(model: ModelVersion, ada: User, monkeypatch: Any) -> None:
    def launch() -> Run:
        return launch_run(
            project=model.project, stage="export", by=ada, base=model, config={"push_to": "ada/kite", "format": "bf16"}
        )

    with pytest.raises(BadInput, match="push_to: you have no token"):
        launch()
    monkeypatch.setattr("webapp.runs.services.launching.hub_token", lambda _: "hf_secretsecret")
    run = launch()
    assert hub_access(run)["HF_TOKEN"] == "", "never the token of whoever runs the worker"
    monkeypatch.setattr("webapp.runs.execution.hub_token", lambda _: "hf_secretsecret")
    assert hub_access(run)["HF_TOKEN"] == "hf_secretsecret"
