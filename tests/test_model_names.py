"""A model is named by its place on the hub, or by a folder that the operator has opened; nothing else is looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests import factories
from webapp.accounts.models import Project, User
from webapp.accounts.services import change_settings
from webapp.errors import BadInput
from webapp.model_names import check_model_name, model_source
from webapp.registry.artefacts import local_folder
from webapp.registry.services import register_model
from webapp.runs.services import launch_run


@pytest.fixture
def models(tmp_path: Path, settings: Any) -> Path:
    """A folder that the operator has opened, with one model in it."""
    opened = tmp_path / "models"
    settings.MODEL_FOLDERS = [opened]
    (opened / "llama").mkdir(parents=True)
    (opened / "llama" / "config.json").write_text("{}")
    (opened / "llama" / "model.safetensors").write_text("")
    return opened


@pytest.mark.parametrize("name", ["", "gpt2", "org/model", "Qwen/Qwen3-0.6B", "a.b_c/d-e.1"])
def test_hub_names_are_taken_as_they_are(name: Any) -> None:
    check_model_name(name)
    assert not name or model_source(name) == name


HOSTILE = ["/etc", "/", ".", "..", "../x", "~/x", "a/b/c", "org/../x", "/nonesuch", "file:///etc", "https://x.y/z",
           "org/model\x00", "-x", "org//model", "\\\\host\\share", "templates/base.html", "webapp",
           "function:os.system"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_else_is_refused_in_the_same_words(name: Any, models: Any) -> None:
    with pytest.raises(BadInput) as refused:
        check_model_name(name)
    assert refused.value.message.startswith("base_name: give the name of a model on the Hugging Face hub")
    assert refused.value.data == {"field": "base_name"}


def test_the_answer_does_not_tell_what_exists(tmp_path: Path, models: Any) -> None:
    (tmp_path / "secret").mkdir()
    said = []
    for name in ("secret", "nonesuch"):
        with pytest.raises(BadInput) as refused:
            check_model_name(str(tmp_path / name))
        said.append(refused.value.message)
    assert said[0] == said[1]


def test_folders_are_closed_unless_the_operator_lists_them(models: Any, settings: Any) -> None:
    assert model_source(f"{models}/llama") == str(models / "llama")
    settings.MODEL_FOLDERS = []
    with pytest.raises(BadInput, match="folders are not open"):
        check_model_name(f"{models}/llama")


def test_files_are_named_only_where_a_model_is_added(models: Any) -> None:
    (models / "llama.gguf").write_text("")
    (models / "notes.txt").write_text("")
    for name in (f"{models}/llama.gguf", "org/model/model-Q8_0.gguf"):
        assert model_source(name, files=True) == name
        with pytest.raises(BadInput):
            model_source(name)
    with pytest.raises(BadInput, match="no such folder or file"):
        model_source(f"{models}/notes.txt", files=True)


def test_a_file_that_is_a_link_out_is_refused(tmp_path: Path, models: Any) -> None:
    (tmp_path / "secret.gguf").write_text("")
    (models / "link.gguf").symlink_to(tmp_path / "secret.gguf")
    with pytest.raises(BadInput, match="no such folder or file"):
        model_source(f"{models}/link.gguf", files=True)


@pytest.mark.parametrize("way", ["/../../secret", "/llama/../../secret", "/llama/../../models-of-others"])
def test_a_path_that_climbs_out_is_refused(tmp_path: Path, models: Any, way: Any) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "models-of-others").mkdir()
    with pytest.raises(BadInput, match="give the name"):
        check_model_name(f"{models}{way}")


def test_a_link_that_leads_out_is_refused(tmp_path: Path, models: Any) -> None:
    (tmp_path / "secret").mkdir()
    (models / "link").symlink_to(tmp_path / "secret")
    (models / "llama" / "weights.safetensors").symlink_to(tmp_path / "secret" / "weights")
    for name in ("link", "llama"):
        with pytest.raises(BadInput, match="leads out"):
            model_source(f"{models}/{name}")


def test_a_link_within_the_opened_folder_is_fine(models: Any) -> None:
    (models / "blobs").mkdir()
    (models / "blobs" / "1").write_text("")
    (models / "llama" / "weights.safetensors").symlink_to(models / "blobs" / "1")
    assert model_source(f"{models}/llama") == str(models / "llama")


@pytest.mark.parametrize("shard", ["../../secret/model.safetensors", "/etc/passwd"])
def test_an_index_that_leads_out_is_refused(models: Any, shard: Any) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": shard}}
    (models / "llama" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match="leads out"):
        model_source(f"{models}/llama")


def test_an_adapter_whose_base_leads_out_is_refused(models: Any) -> None:
    adapter = models / "llama" / "adapter_config.json"
    adapter.write_text(json.dumps({"base_model_name_or_path": "org/model"}))
    assert model_source(f"{models}/llama")
    adapter.write_text(json.dumps({"base_model_name_or_path": "/etc"}))
    with pytest.raises(BadInput, match="leads out"):
        model_source(f"{models}/llama")


def test_the_model_of_another_project_is_refused_by_its_path(
    project: Project, ada: User, tmp_path: Path, settings: Any
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    model = register_model(project=project, name="", kind="full", stage="sft", by=ada, folder=folder)
    settings.MODEL_FOLDERS = [Path("/")]  # even where an operator opens everything
    other = factories.project(ada, "Crane")
    with pytest.raises(BadInput, match="base_name: give the name"):
        launch_run(project=other, stage="sample", by=ada, base_name=str(local_folder(model)))
    (tmp_path / "link").symlink_to(local_folder(model))
    with pytest.raises(BadInput, match="leads out"):
        model_source(str(tmp_path / "link"))


def test_a_project_cannot_keep_a_path_as_its_base(client: Client, project: Project, ada: User) -> None:
    with pytest.raises(BadInput, match="base_model: give the name"):
        change_settings(project=project, changes={"base_model": "/etc"})
    client.force_login(ada)
    page = client.get("/projects/kite/settings/")
    fields = {name: page.context["form"][name].value() or "" for name in page.context["form"].fields}
    said = client.post("/projects/kite/settings/", fields | {"base_model": "/etc"}).content.decode()
    assert "give the name of a model on the Hugging Face hub" in said
