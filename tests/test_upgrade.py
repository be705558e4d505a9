"""An installation of the first release migrates to this one, and what it held works as before."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.hashers import make_password
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django.utils import timezone
from knox.crypto import hash_token
from rest_framework.test import APIClient

from annotations.models import Demonstration, Draft
from tests.factories import PASSWORD
from webapp.accounts.models import ApiToken
from webapp.chat.models import Conversation
from webapp.datasets.models import Snapshot
from webapp.registry.artefacts import folder_digest, local_folder
from webapp.registry.models import Deployment
from webapp.runs.models import Run

FIRST_RELEASE = [
    ("accounts", "0001_initial"),
    ("annotations", "0001_initial"),
    ("chat", "0001_initial"),
    ("data", "0001_initial"),
    ("demo", "0001_initial"),
    ("knox", "0009_extend_authtoken_field"),
    ("registry", "0001_initial"),
    ("runs", "0002_more_stages"),
]
PROJECT = "/projects/kite/"
PAGES = [
    "/", "/profile/", "/label/", "/label/history/", "/chat/?project=kite", PROJECT, f"{PROJECT}settings/",
    f"{PROJECT}members/", f"{PROJECT}guidelines/", f"{PROJECT}data/", f"{PROJECT}data/prompts/",
    f"{PROJECT}data/demonstrations/", f"{PROJECT}data/snapshots/", f"{PROJECT}models/", f"{PROJECT}deployments/",
    f"{PROJECT}runs/", f"{PROJECT}data/export/demonstrations.jsonl",
]  # fmt: skip
SECRET = "5e" * 32


def migrate(targets: list[tuple[str, str]]) -> Any:
    """Migrate there, forward or back; the models as they are in that release."""
    MigrationExecutor(connection).migrate(targets)
    return MigrationExecutor(connection).loader.project_state(targets).apps


@pytest.fixture
def first_release(transactional_db: None) -> Iterator[Any]:
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    try:
        yield migrate(FIRST_RELEASE)
    finally:
        migrate(newest)


@pytest.fixture
def home(settings: LazySettings, tmp_path: Path) -> Path:
    """A data folder with one small model, named by its whole address as the first release did."""
    settings.HOME, settings.ARTEFACTS_URL = tmp_path, f"file://{tmp_path}/artefacts"
    (tmp_path / "secret_key").write_text("key")
    folder = tmp_path / "artefacts" / "models" / ("0123456789abcdef" * 2)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return tmp_path


def fill(old: Any, home: Path) -> None:
    """One of each of what people would miss."""

    def add(name: str, /, **fields: Any) -> Any:
        return old.get_model(name).objects.create(**fields)

    ada = add("accounts.User", email="ada@example.com", name="Ada", password=make_password(PASSWORD))
    kite = add("accounts.Project", name="Kite", slug="kite", created_by=ada)
    add("accounts.Membership", project=kite, user=ada, role="owner")
    guidelines = add("accounts.Guidelines", project=kite, version=1, text="Be kind.", created_by=ada)
    add("knox.AuthToken", user=ada, digest=hash_token(SECRET), token_key=SECRET[:15], expiry=None)

    turns = [{"role": "user", "content": "Why do kites fly?"}]
    prompt = add(
        "annotations.Prompt", project=kite, messages=turns, created_by=ada, digest="a" * 64, split="train",
        source="written",
    )  # fmt: skip
    done, under_way = (add("annotations.Task", project=kite, prompt=prompt, kind="write") for _ in range(2))
    until = timezone.now() + timedelta(hours=1)
    lease = add("annotations.Lease", task=done, person=ada, until=until, outcome="submitted", seat=1)
    add("annotations.Lease", task=under_way, person=ada, until=until, seat=1)
    reply = add("annotations.Response", prompt=prompt, text="Because of the wind.", author=ada)
    add(
        "annotations.Demonstration", task=done, lease=lease, prompt=prompt, author=ada, token=uuid.uuid4(),
        guidelines=guidelines, response=reply, state="accepted",
    )  # fmt: skip
    content = {"text": "Half a thought"}
    add("annotations.Draft", task=under_way, person=ada, content=content, revision=1_764_000_000_000)
    fill_models(add, home, kite, ada)


def fill_models(add: Callable[..., Any], home: Path, kite: Any, ada: Any) -> None:
    """A run and the model that it made, which is live and has answered."""
    (folder,) = (home / "artefacts" / "models").iterdir()
    files = {"config.json": hashlib.sha256(b"{}").hexdigest()}
    model = add(
        "registry.ModelVersion", project=kite, number=1, name="toy", kind="full", stage="sft", created_by=ada,
        artefact=f"file://{folder}", files=files, sha256=folder_digest(files),
    )  # fmt: skip
    add("registry.Deployment", project=kite, model=model, state="live", by=ada)
    store = f"file://{home}/artefacts/snapshots/{'a' * 32}"
    add(
        "runs.Snapshot", project=kite, kind="demonstrations", name="first", content_hash="a" * 64, created_by=ada,
        files={"train": f"{store}/train.jsonl"}, counts={"train": 1, "heldout": 0, "characters": 36},
    )  # fmt: skip
    result = {"model": {"base": f"file://{folder}"}}
    add(
        "runs.Run", project=kite, number=1, name="sft 1", stage="sft", config={}, state="succeeded", output=model,
        created_by=ada, result=result,
    )  # fmt: skip
    chat = add("chat.Conversation", project=kite, user=ada, model=model, title="Kites")
    asked = add("chat.Message", conversation=chat, role="user", text="And why do they fall?")
    chat.leaf = add("chat.Message", conversation=chat, role="assistant", text="No wind.", parent=asked, model=model)
    chat.save()


@pytest.mark.slow
def test_what_the_first_release_held_works_after_the_migrations(first_release: Any, home: Path) -> None:
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    fill(first_release, home)
    migrate(newest)

    assert Demonstration.objects.get().response.text == "Because of the wind."
    assert Draft.objects.get().content == {"text": "Half a thought"}
    assert [message.text for message in Conversation.objects.get().messages.order_by("pk")][1] == "No wind."
    model = Deployment.objects.get(state="live").model
    assert model.artefact == f"artefacts/models/{'0123456789abcdef' * 2}"
    assert local_folder(model).is_dir()
    assert Run.objects.get().result["model"]["base"] == model.artefact
    assert Snapshot.objects.get().files == {"train": f"artefacts/snapshots/{'a' * 32}/train.jsonl"}

    token = ApiToken.objects.get()
    assert set(token.scopes) == set(ApiToken.Scope.values)
    assert token.expiry is not None
    api = APIClient(headers={"authorization": f"Bearer {SECRET}"})
    assert [row["slug"] for row in api.get("/api/v1/projects/").json()["results"]] == ["kite"]

    browser = Client()
    browser.post("/accounts/login/", {"login": "ada@example.com", "password": PASSWORD})
    assert {page: browser.get(page).status_code for page in PAGES} == dict.fromkeys(PAGES, 200)
    assert "Half a thought" in browser.get("/label/?project=kite").content.decode()
