"""Models in their store, and which of them answers.

Over 300 lines: all cases share the store and the scripted model server.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.apps import apps
from django.conf import LazySettings
from django.test import Client

from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project
from webapp.errors import BadInput, Conflict, Unavailable
from webapp.model_server.serving import ModelServer
from webapp.registry.artefacts import local_folder
from webapp.registry.models import Deployment, ModelVersion
from webapp.registry.selectors import choose_model, live_deployment, previous_deployment
from webapp.registry.services import (
    archive_model,
    deploy,
    ensure_served,
    register_model,
    reload_deployments,
    retire,
    roll_back,
)

pytestmark = pytest.mark.django_db
State = Deployment.State


class Serving:
    """What a model server does, as far as the site sees it."""

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.asked: list[str] = []
        self.takes_system = True
        self.down = self.refuses = False
        self.client = ModelServer("http://models", "word", httpx.MockTransport(self.answer))

    def entry(self, name: str) -> dict[str, object]:
        return {"id": name} if self.takes_system else {"id": name, "takes_system": False}

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        assert request.headers["Authorization"] == "Bearer word"
        body = json.loads(request.content or "{}")
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [self.entry(name) for name in self.loaded]})
        if self.refuses:
            return httpx.Response(400, json={"error": {"message": "no room for another model"}})
        if request.url.path == "/v1/load_lora_adapter":
            self.loaded[body["lora_name"]] = body["lora_path"]
        if request.url.path == "/v1/chat/completions":
            self.asked.append(body["model"])
        return httpx.Response(200, json={})


@pytest.fixture(autouse=True)
def store(settings: LazySettings, tmp_path: Path) -> Path:
    settings.ARTEFACTS_URL = f"file://{tmp_path}/store"
    settings.RUNS_FOLDER = tmp_path / "runs"
    return tmp_path


@pytest.fixture
def serving() -> Serving:
    return Serving()


def model_of(project: Project, store: Path, content: str = "weights", **fields: Any) -> ModelVersion:
    folder = store / f"made-{content}"
    (folder / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(content)
    (folder / "deep" / "tokenizer.json").write_text("{}")
    fields = {"name": content, "kind": "full", "stage": "sft"} | fields
    return register_model(project=project, by=project.created_by, folder=folder, **fields)


def put_live(project: Project, model: ModelVersion, serving: Serving, share: float = 1.0) -> Deployment:
    return deploy(project=project, model=model, by=project.created_by, share=share, why="better", server=serving.client)


def test_a_model_is_copied_with_its_hashes_and_numbered(project: Project, store: Path) -> None:
    first, second = model_of(project, store, "one"), model_of(project, store, "two", parent=None)
    assert (first.number, second.number) == (1, 2)
    assert (local_folder(first) / "model.safetensors").read_text() == "one"
    assert set(first.files) == {"model.safetensors", "deep/tokenizer.json"}
    assert first.sha256 != second.sha256


def test_the_same_content_is_stored_once(project: Project, store: Path) -> None:
    assert model_of(project, store).artefact == model_of(project, store).artefact


def test_files_that_are_not_what_was_promised_are_not_registered(project: Project, store: Path) -> None:
    folder = store / "made-x"
    folder.mkdir()
    (folder / "model.safetensors").write_text("something")
    with pytest.raises(Conflict, match="changed while it was copied"):
        register_model(
            project=project, name="x", kind="full", stage="sft", by=project.created_by, folder=folder,
            files={"model.safetensors": "0" * 64},
        )  # fmt: skip
    assert not ModelVersion.objects.exists()


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_damaged_model_is_named_with_what_to_do(project: Project, store: Path, harm: str) -> None:
    model = model_of(project, store)
    file = local_folder(model) / "model.safetensors"
    file.write_text("other") if harm == "changed" else file.unlink()
    with pytest.raises(Conflict) as told:
        local_folder(model)
    assert told.value.error_code == "damaged"
    assert str(file) in told.value.message
    assert "Put the folder back from a backup" in told.value.message


def test_a_model_of_another_store_is_fetched_and_verified(
    project: Project, store: Path, settings: LazySettings
) -> None:
    settings.ARTEFACTS_URL = "memory://store"
    model = model_of(project, store)
    folder = local_folder(model)
    assert (folder / "deep" / "tokenizer.json").read_text() == "{}"
    assert folder.is_relative_to(store)
    assert local_folder(model) == folder


def test_a_model_answers_once_before_it_goes_live(project: Project, store: Path, serving: Serving) -> None:
    model = model_of(project, store)
    deployment = put_live(project, model, serving)
    assert (deployment.state, deployment.share) == (State.LIVE, 1.0)
    assert serving.loaded == {"kite-1": str(local_folder(model))}
    assert serving.asked == ["kite-1"]


def test_nothing_changes_when_the_model_server_refuses_or_is_down(
    project: Project, store: Path, serving: Serving
) -> None:
    put_live(project, model_of(project, store, "one"), serving)
    serving.refuses = True
    with pytest.raises(Unavailable, match="no room for another model"):
        put_live(project, model_of(project, store, "two"), serving)
    serving.down = True
    with pytest.raises(Unavailable, match="does not answer"):
        put_live(project, model_of(project, store, "two"), serving)
    assert existing(live_deployment(project)).model.name == "one"


def test_the_next_live_model_retires_the_last(project: Project, store: Path, serving: Serving) -> None:
    first = put_live(project, model_of(project, store, "one"), serving)
    put_live(project, model_of(project, store, "two"), serving)
    first.refresh_from_db()
    assert first.state == State.RETIRED
    assert first.until is not None
    assert existing(live_deployment(project)).model.name == "two"


def test_a_canary_gets_its_share_and_each_conversation_keeps_its_model(
    project: Project, store: Path, serving: Serving
) -> None:
    put_live(project, model_of(project, store, "one"), serving)
    canary = put_live(project, model_of(project, store, "two"), serving, share=0.5)
    assert canary.state == State.CANARY
    chosen = [existing(choose_model(project, f"conversation {number}")).name for number in range(200)]
    assert 0.35 < chosen.count("two") / 200 < 0.65
    assert chosen == [existing(choose_model(project, f"conversation {number}")).name for number in range(200)]


def test_a_canary_is_promoted_and_taken_back(project: Project, store: Path, serving: Serving) -> None:
    one, two, three = (model_of(project, store, name) for name in ("one", "two", "three"))
    put_live(project, one, serving)
    put_live(project, two, serving, share=0.1)
    promoted = deploy(project=project, model=two, by=project.created_by, server=serving.client)
    assert (promoted.state, promoted.share) == (State.LIVE, 1.0)
    assert promoted.why.endswith(f"Made live by {project.created_by}")
    canary = put_live(project, three, serving, share=0.1)
    assert roll_back(deployment=canary, by=project.created_by, server=serving.client) is None
    canary.refresh_from_db()
    assert canary.state == State.ROLLED_BACK
    returned = existing(roll_back(deployment=promoted, by=project.created_by, server=serving.client))
    assert returned.model == one, "a canary that was never live does not return"


def test_rolling_back_twice_goes_back_twice(project: Project, store: Path, serving: Serving) -> None:
    live = [put_live(project, model_of(project, store, name), serving) for name in ("one", "two", "three")][-1]
    for name in ("two", "one"):
        live = existing(roll_back(deployment=live, by=project.created_by, server=serving.client))
        assert (live.model.name, live.state) == (name, State.LIVE)
    with pytest.raises(Conflict, match="No model was live before"):
        roll_back(deployment=live, by=project.created_by, server=serving.client)


def test_rolling_back_passes_over_a_model_that_was_archived_since(
    project: Project, store: Path, serving: Serving
) -> None:
    one, two, three = (model_of(project, store, name) for name in ("one", "two", "three"))
    live = [put_live(project, model, serving) for model in (one, two, three)][-1]
    archive_model(model=two, by=project.created_by)
    assert existing(roll_back(deployment=live, by=project.created_by, server=serving.client)).model == one


def test_a_canary_that_became_live_goes_back_to_what_it_replaced(
    project: Project, store: Path, serving: Serving
) -> None:
    one, two, three = (model_of(project, store, name) for name in ("one", "two", "three"))
    put_live(project, one, serving)
    put_live(project, two, serving)
    put_live(project, three, serving, share=0.1)
    live = put_live(project, three, serving)
    for model in (two, one):
        live = existing(roll_back(deployment=live, by=project.created_by, server=serving.client))
        assert live.model == model


def test_another_share_for_a_canary_is_no_roll_back(project: Project, store: Path, serving: Serving) -> None:
    put_live(project, model_of(project, store, "one"), serving)
    two = model_of(project, store, "two")
    canary = put_live(project, two, serving, share=0.1)
    changed = put_live(project, two, serving, share=0.25)
    assert (changed.pk, changed.state, changed.share) == (canary.pk, State.CANARY, 0.25)
    assert "Share changed from 10% to 25% by" in changed.why
    assert not Deployment.objects.filter(state=State.ROLLED_BACK).exists()


def test_deployments_of_an_earlier_version_learn_what_they_replaced(
    project: Project, store: Path, serving: Serving
) -> None:
    live = [put_live(project, model_of(project, store, name), serving) for name in ("one", "two", "three")][-1]
    Deployment.objects.update(replaced=None)
    migration = import_module("webapp.registry.migrations.0004_name_replaced_deployments")
    migration.name_what_was_replaced(apps, None)
    live.refresh_from_db()
    assert existing(previous_deployment(live)).model.name == "two"
    assert existing(previous_deployment(existing(previous_deployment(live)))).model.name == "one"


def test_one_click_brings_the_previous_model_back_even_when_the_server_is_down(
    project: Project, store: Path, serving: Serving
) -> None:
    put_live(project, model_of(project, store, "one"), serving)
    second = put_live(project, model_of(project, store, "two"), serving)
    serving.down = True
    returned = existing(roll_back(deployment=second, by=project.created_by, why="rambles", server=serving.client))
    second.refresh_from_db()
    assert (second.state, second.ended_why) == (State.ROLLED_BACK, "rambles")
    assert (returned.model.name, returned.state) == ("one", State.LIVE)
    assert "does not answer" in returned.problem
    serving.down, serving.loaded = False, {}
    assert reload_deployments(serving.client) == 1
    returned.refresh_from_db()
    assert returned.problem == ""


def test_there_is_no_way_back_from_the_first_model(project: Project, store: Path, serving: Serving) -> None:
    deployment = put_live(project, model_of(project, store), serving)
    with pytest.raises(Conflict, match="No model was live before"):
        roll_back(deployment=deployment, by=project.created_by, server=serving.client)
    retire(deployment=deployment, by=project.created_by)
    assert choose_model(project, "anyone") is None


def test_a_restarted_model_server_gets_its_models_again(project: Project, store: Path, serving: Serving) -> None:
    put_live(project, model_of(project, store, "one"), serving)
    put_live(project, model_of(project, store, "two"), serving, share=0.5)
    serving.loaded = {}
    assert reload_deployments(serving.client) == 2
    assert set(serving.loaded) == {"kite-1", "kite-2"}
    assert reload_deployments(serving.client) == 0


def test_a_live_model_without_system_turns_is_told_on_its_page(
    project: Project, store: Path, serving: Serving, client: Client
) -> None:
    client.force_login(project.created_by)
    sentence = "takes no system prompt"
    deployment = put_live(project, model_of(project, store, "one"), serving)
    assert sentence not in client.get(f"/projects/{project.slug}/deployments/").content.decode()
    serving.takes_system = False
    reload_deployments(serving.client)
    deployment.refresh_from_db()
    assert deployment.folds_system
    assert sentence in client.get(f"/projects/{project.slug}/deployments/").content.decode()
    second = put_live(project, model_of(project, store, "two"), serving)
    assert second.folds_system
    assert existing(roll_back(deployment=second, by=project.created_by, server=serving.client)).folds_system


def test_what_keeps_a_model_from_being_served_is_kept_for_its_page(
    project: Project, store: Path, serving: Serving
) -> None:
    model = model_of(project, store)
    deployment = put_live(project, model, serving)
    (local_folder(model) / "model.safetensors").write_text("harmed")
    serving.loaded = {}
    reload_deployments(serving.client)
    deployment.refresh_from_db()
    assert "is damaged" in deployment.problem


@pytest.mark.parametrize("kind", [ModelVersion.Kind.REWARD, ModelVersion.Kind.TOKENIZER])
def test_only_a_language_model_can_be_served(project: Project, serving: Serving, kind: ModelVersion.Kind) -> None:
    with pytest.raises(Conflict, match="cannot answer chats"):
        ensure_served(factories.model_version(project, kind), serving.client)


def test_a_model_of_another_project_is_not_deployed(project: Project, store: Path, serving: Serving) -> None:
    with pytest.raises(BadInput, match="another project"):
        put_live(project, model_of(factories.project(), store), serving)


def test_a_deployed_model_is_not_archived(project: Project, store: Path, serving: Serving) -> None:
    model = model_of(project, store)
    deployment = put_live(project, model, serving)
    with pytest.raises(Conflict, match="is deployed"):
        archive_model(model=model, by=project.created_by)
    retire(deployment=deployment, by=project.created_by)
    archive_model(model=model, by=project.created_by)
    model.refresh_from_db()
    with pytest.raises(Conflict, match="archived"):
        put_live(project, model, serving)
