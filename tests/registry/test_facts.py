"""The shape of a model: stored when it is made, read from its files where an earlier version stored none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from webapp.accounts.models import Project
from webapp.registry.facts import facts_of, facts_of_output
from webapp.registry.models import ModelVersion
from webapp.registry.services import register_model

pytestmark = pytest.mark.django_db
CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 500}


@pytest.fixture
def folder(tmp_path: Path, data_folders: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def registered(project: Project, folder: Path, kind: str = "full", **details: object) -> ModelVersion:
    return register_model(
        project=project, name="m", kind=kind, stage="sft", by=project.created_by, folder=folder, **details  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_model_of_an_earlier_version_is_read_from_its_files(project: Project, folder: Path) -> None:
    facts = facts_of(registered(project, folder, parameters=123_000_000, context=2048))
    assert facts is not None
    assert (facts.hidden, facts.chat_template, facts.parameters, facts.context) == (64, True, 123_000_000, 2048)


def test_stored_facts_are_taken_as_they_are(project: Project, folder: Path) -> None:
    stored = facts_of_output(folder, {"parameters": 7}, None) | {"layers": 99}
    facts = facts_of(registered(project, folder, facts=stored))
    assert facts is not None
    assert (facts.layers, facts.parameters) == (99, 7)


def test_an_adapter_has_the_numbers_of_its_base(project: Project, folder: Path, tmp_path: Path) -> None:
    base = registered(project, folder, parameters=1000)
    adapter_folder = tmp_path / "adapter"
    adapter_folder.mkdir()
    (adapter_folder / "adapter_config.json").write_text(json.dumps({"r": 16}))
    facts = facts_of(registered(project, adapter_folder, "adapter", parent=base))
    assert facts is not None
    assert (facts.adapter_rank, facts.hidden, facts.parameters) == (16, 64, 1000)


def test_a_model_whose_files_are_gone_has_no_facts(project: Project, folder: Path, data_folders: Path) -> None:
    model = registered(project, folder)
    ModelVersion.objects.filter(pk=model.pk).update(artefact="artefacts/models/gone")
    model.refresh_from_db()
    assert facts_of(model) is None
