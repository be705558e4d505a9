"""The files that runs leave, taken away by people who may see the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests import factories
from webapp.accounts.models import Project, User
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db
LINES = '{"id": "document:1", "reason": "copy"}\n' * 5000


@pytest.fixture(autouse=True)
def store(settings: Any, tmp_path: Path) -> Path:
    settings.ARTEFACTS_URL = f"file://{tmp_path}/artefacts"
    return tmp_path / "artefacts"


@pytest.fixture
def cleaned(project: Project) -> Run:
    return factories.run_with_output(project, "dropped.jsonl", LINES, "corpus")


def test_a_file_of_a_run_is_on_its_page_and_comes_whole(client: Client, ada: User, cleaned: Run) -> None:
    client.force_login(ada)
    address = reverse("run_output", args=[cleaned.pk, "dropped.jsonl"])
    page = client.get(reverse("run_detail", args=[cleaned.pk])).content.decode()
    assert address in page
    assert "What cleaning left out, and why" in page
    answer = client.get(address)
    assert answer.getvalue() == LINES.encode()
    assert answer["Content-Disposition"] == f'attachment; filename="kite-run-{cleaned.number}-dropped.jsonl"'
    assert answer["Cache-Control"] == "no-store"


def test_the_api_names_the_files_and_gives_them(client: Client, ada: User, cleaned: Run) -> None:
    client.force_login(ada)
    assert client.get(reverse("api_run", args=[cleaned.pk])).json()["outputs"] == ["dropped.jsonl"]
    answer = client.get(reverse("api_run_output", args=[cleaned.pk, "dropped.jsonl"]))
    assert answer.getvalue() == LINES.encode()


@pytest.mark.parametrize("name", ["samples.jsonl", "../../secret_key", "..%2F..%2Fsecret_key"])
def test_a_file_that_the_run_did_not_leave_is_not_there(client: Client, ada: User, cleaned: Run, name: str) -> None:
    client.force_login(ada)
    answer = client.get(f"/runs/{cleaned.pk}/outputs/{name}")
    assert answer.status_code == 404


def test_a_store_without_the_file_is_told_in_a_sentence(client: Client, ada: User, cleaned: Run, store: Path) -> None:
    shutil.rmtree(store)
    client.force_login(ada)
    answer = client.get(reverse("run_output", args=[cleaned.pk, "dropped.jsonl"]))
    assert answer.status_code == 503
    assert "model storage" in answer.content.decode()


def test_an_annotator_may_not_fetch_it(client: Client, ann: User, stranger: User, cleaned: Run) -> None:
    address = reverse("run_output", args=[cleaned.pk, "dropped.jsonl"])
    client.force_login(ann)
    assert client.get(address).status_code == 403
    client.force_login(stranger)
    assert client.get(address).status_code == 404
