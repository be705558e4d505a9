"""What a model's authors say of it is shown, can be searched for, and proposed for chats."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests import factories
from tests.registry.test_services import Serving
from training.contract import ModelFacts
from webapp.accounts.models import Project, User
from webapp.registry import services
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import models_of
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db
FACTS = ModelFacts(
    parameters=1000, license="apache-2.0", languages=["en", "de"], tags=["chat"], base_model="org/base",
    dtype="bfloat16", architecture="LlamaForCausalLM", sampling={"temperature": 0.6, "top_p": 0.95, "top_k": 20.0},
)  # fmt: skip


@pytest.fixture
def model(project: Project) -> ModelVersion:
    return factories.model_version(project, stage="add", facts=FACTS.model_dump())


def test_its_page_shows_what_its_card_says(client: Client, mo: User, model: ModelVersion) -> None:
    client.force_login(mo)
    page = client.get(f"/models/{model.pk}/").content.decode()
    for text in ("apache-2.0", "en, de", "org/base", "bfloat16", "LlamaForCausalLM", "Advised sampling"):
        assert text in page, text
    assert "as its authors advise: temperature 0.6, top-p 0.95" in page


@pytest.mark.parametrize(
    ("words", "found"),
    [("apache", True), ("DE chat", True), ("org/base bfloat", True), ("mit", False), ("chat mit", False), ("%", False)],
)
def test_models_are_found_by_it(project: Project, model: ModelVersion, words: str, found: bool) -> None:
    factories.model_version(project)
    assert (model in models_of(project, search=words)) is found


def test_a_search_without_a_match_says_so(client: Client, mo: User, model: ModelVersion) -> None:
    client.force_login(mo)
    address = f"/projects/{model.project.slug}/models/"
    assert model.name in client.get(address, {"q": "apache"}).content.decode()
    assert "No such model" in client.get(address, {"q": "nothing-like-it"}).content.decode()
    assert client.get(address, {"q": "\x00"}).status_code == 400


def test_deploying_changes_the_sampling_only_where_somebody_ticked_it(
    client: Client, mo: User, project: Project, model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving()
    monkeypatch.setattr(services, "ModelServer", lambda: serving.client)
    monkeypatch.setattr(services, "local_folder", lambda _: "/m")
    client.force_login(mo)
    before = (project.temperature, project.top_p)
    form: dict[str, Any] = {"share": 100}
    assert client.post(f"/models/{model.pk}/deploy/", form).status_code == 302
    project.refresh_from_db()
    assert (project.temperature, project.top_p) == before
    other = factories.model_version(project, stage="add", facts=FACTS.model_dump())
    assert client.post(f"/models/{other.pk}/deploy/", form | {"sampling": "on"}).status_code == 302
    project.refresh_from_db()
    assert (project.temperature, project.top_p) == (0.6, 0.95)


def test_deploy_and_chat_shows_what_it_would_change(client: Client, mo: User, model: ModelVersion) -> None:
    run = factories.run(model.project, "add", state=Run.State.SUCCEEDED, output=model)
    client.force_login(mo)
    page = client.get(f"/runs/{run.pk}/").content.decode()
    assert "Deploy and chat" in page
    assert 'name="sampling" checked' in page
    model.project.temperature, model.project.top_p = 0.6, 0.95
    model.project.save()
    assert 'name="sampling"' not in client.get(f"/runs/{run.pk}/").content.decode()
