"""A model on the training machine becomes a chat in three clicks: Add a model, Add, Deploy and chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests import factories
from training.contract import DeviceReport
from webapp.accounts.models import Project, User
from webapp.runs.machines import listed_models, save_report
from webapp.runs.models import Run
from webapp.runs.reporting import find_models

pytestmark = pytest.mark.django_db
LAPTOP = DeviceReport(kind="cpu", name="a laptop", memory=16 * 10**9, free=9 * 10**9)


@pytest.fixture
def listed(tmp_path: Path, settings: Any) -> Path:
    """A listed folder with a model, a GGUF file, a link out, and things that are no models."""
    folder = tmp_path / "models"
    settings.MODEL_FOLDERS = [folder]
    for name in ("llama", "no-weights", "pickled"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    (folder / "llama" / "model.safetensors").write_bytes(bytes(3000))
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    (folder / "tiny.gguf").write_bytes(bytes(40))
    (folder / "notes.txt").write_text("x")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "config.json").write_text("{}")
    (secret / "model.safetensors").write_bytes(b"x")
    (folder / "link").symlink_to(secret)
    return folder


def test_a_machine_reports_the_models_of_its_listed_folders(listed: Path) -> None:
    assert find_models() == [
        {"path": str(listed / "llama"), "bytes": 3000},
        {"path": str(listed / "tiny.gguf"), "bytes": 40},
    ]


def test_one_click_adds_one_and_another_puts_it_live(client: Client, project: Project, mo: User, listed: Path) -> None:
    save_report(LAPTOP, models=find_models())
    assert len(listed_models()) == 2
    client.force_login(mo)
    address = f"/projects/{project.slug}/runs/launch/add/"
    page = client.get(address).content.decode()
    assert f'name="found" value="{listed / "llama"}"' in page
    form_tag = page.index('class="launch"')
    assert "name=" not in page[page.index("<button", form_tag) :].partition(">")[0], "what the return key presses"
    form = {"chat_template": "keep", "seed": 0, "threads": 0, "device": "auto", "base_name": "", "upload": ""}
    client.post(address, form | {"found": str(listed / "llama")})
    run = Run.objects.get()
    assert (run.name, run.base_name) == ("llama", str(listed / "llama"))
    run.output, run.state = factories.model_version(project, stage="add"), Run.State.SUCCEEDED
    run.save()
    assert "Deploy and chat" in client.get(f"/runs/{run.pk}/").content.decode()


def test_nothing_is_offered_beside_a_live_model_or_to_those_who_may_not(
    client: Client, project: Project, mo: User
) -> None:
    model = factories.model_version(project, stage="add")
    run = factories.run(project, "add", state=Run.State.SUCCEEDED, output=model)
    factories.deployment(project, factories.model_version(project))
    client.force_login(mo)
    assert "Deploy and chat" not in client.get(f"/runs/{run.pk}/").content.decode()


@pytest.mark.parametrize("path", ["/etc", "upload:x.zip", "../x"])
def test_a_button_names_nothing_that_a_person_may_not(client: Client, project: Project, mo: User, path: str) -> None:
    client.force_login(mo)
    form = {"chat_template": "keep", "seed": 0, "threads": 0, "device": "auto", "found": path}
    answer = client.post(f"/projects/{project.slug}/runs/launch/add/", form)
    assert answer.status_code == 400
    assert not Run.objects.exists()
