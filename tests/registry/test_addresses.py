"""A data folder is moved or copied, and what the database says of files holds in the new place and only there."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import LazySettings
from django.db import connection
from django.db.models import Model

from tests import factories
from training.models.compute import adapter_base
from webapp.accounts.models import Project
from webapp.errors import Conflict
from webapp.home_folder import ROOT
from webapp.registry.addresses import adopted, resolved, stored
from webapp.registry.artefacts import local_folder, open_file, publish_folder
from webapp.registry.models import ModelVersion
from webapp.registry.services import register_model
from webapp.runs.models import Run

HASH = "0123456789abcdef" * 2


@pytest.fixture
def home(settings: LazySettings, tmp_path: Path) -> Path:
    return live_in(settings, tmp_path / "home")


def live_in(settings: LazySettings, home: Path) -> Path:
    settings.HOME = home
    settings.ARTEFACTS_URL = f"file://{home}/artefacts"
    settings.RUNS_FOLDER = home / "runs"
    home.mkdir(exist_ok=True)
    (home / "secret_key").write_text("key")
    return home


def register(project: Project, folder: Path, kind: str, parent: ModelVersion | None = None, **files: str) -> Any:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    by = project.created_by
    return register_model(
        project=project, name=kind, kind=kind, stage="sft", by=by, folder=folder, parent=parent
    )  # fmt: skip


@pytest.fixture
def full(project: Project, home: Path, tmp_path: Path) -> ModelVersion:
    return register(project, tmp_path / "made-full", "full", config__json="{}", model__safetensors="weights")


@pytest.fixture
def adapter(project: Project, full: ModelVersion, tmp_path: Path) -> ModelVersion:
    """As training leaves it: with the absolute path of its base."""
    base = {"base_model_name_or_path": str(local_folder(full))}
    files = {"adapter_config__json": json.dumps(base), "adapter_model__safetensors": "weights"}
    return register(project, tmp_path / "made-adapter", "adapter", full, **files)


def test_files_in_the_data_folder_are_named_from_there(home: Path) -> None:
    assert stored(f"file://{home}/artefacts/models/a", home) == "artefacts/models/a"
    assert stored(f"{home}/artefacts/models/a", home) == "artefacts/models/a"
    assert resolved("artefacts/models/a", home) == f"file://{home}/artefacts/models/a"


@pytest.mark.parametrize("address", ["s3://bucket/models/a", "memory://store/models/a", "file:///mnt/nas/models/a"])
def test_stores_outside_keep_their_whole_address(home: Path, address: str) -> None:
    assert stored(address, home) == resolved(address, home) == address


@pytest.mark.parametrize("name", ["", "Qwen/Qwen3-0.6B"])
def test_what_is_no_file_stays_as_it_is(home: Path, name: str) -> None:
    assert adopted(name, home, f"file://{home}/artefacts") == name


@pytest.mark.django_db
def test_models_and_files_are_found_after_a_move(
    home: Path, full: ModelVersion, adapter: ModelVersion, settings: LazySettings, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows.jsonl").write_text("a row")
    outputs = publish_folder(tmp_path / "out", folder_name="outputs", files={"rows.jsonl": sha256(b"a row")})
    moved = live_in(settings, home.rename(tmp_path / "moved"))
    assert local_folder(full).is_relative_to(moved)
    assert adapter_base(str(local_folder(adapter))) == str(local_folder(full))
    with open_file(f"{outputs}/rows.jsonl") as file:
        assert file.read() == b"a row"


@pytest.mark.django_db
def test_a_copy_never_reads_its_original(
    home: Path, full: ModelVersion, adapter: ModelVersion, settings: LazySettings, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    base = copy / Path(local_folder(full)).relative_to(home)
    live_in(settings, copy)
    shutil.rmtree(base)
    assert not Path(adapter_base(str(copy / adapter.artefact))).exists()
    with pytest.raises(Conflict, match=rf"Model 1 \(full\) is damaged: {base}.* is missing"):
        local_folder(adapter)


@pytest.mark.django_db
def test_an_adapter_of_a_remote_store_brings_its_base(
    project: Project, home: Path, settings: LazySettings, tmp_path: Path
) -> None:
    settings.ARTEFACTS_URL = "memory://store"
    full = register(project, tmp_path / "full", "full", config__json="{}")
    config = {"base_model_name_or_path": f"/another/worker/cache/models/{full.sha256[:32]}"}
    files = {"adapter_config__json": json.dumps(config), "adapter_model__safetensors": "weights"}
    adapter = register(project, tmp_path / "adapter", "adapter", full, **files)
    base = Path(adapter_base(str(local_folder(adapter))))
    assert (base / "config.json").read_text() == "{}"


def test_an_adapter_may_name_its_base_by_a_path_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "../base"}')
    assert adapter_base(str(tmp_path / "adapter")) == str(tmp_path / "base")


# ------------------------------------------------------------------------------------ addresses of earlier versions


def old_rows(project: Project, old: Path) -> tuple[ModelVersion, Run]:
    model = factories.model_version(project, artefact=f"file://{old}/artefacts/models/{HASH}")
    outputs = {"samples.jsonl": f"file://{old}/artefacts/outputs/{HASH}/samples.jsonl"}
    result = {"model": {"kind": "full", "base": f"{old}/artefacts/models/{HASH}"}, "metrics": {"loss": 1}}
    snapshot = factories.snapshot(project, files={"train": f"file://{old}/artefacts/snapshots/{HASH}/train.jsonl"})
    run = factories.run(project, outputs=outputs, result=result)
    run.snapshots.add(snapshot)
    return model, run


class EarlierApps:
    """The models as these migrations knew them: snapshots belonged to the app `runs`."""

    def get_model(self, app: str, name: str) -> type[Model]:
        return apps.get_model("datasets" if name == "Snapshot" else app, name)


def migrate() -> None:
    for app in ("registry", "runs"):
        (path,) = (ROOT / "webapp" / app / "migrations").glob("*_addresses_from_the_data_folder.py")
        module = import_module(f"webapp.{app}.migrations.{path.stem}")
        with connection.schema_editor() as editor:
            module.adopt(EarlierApps(), editor)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["here", "moved", "copied"])
def test_addresses_of_an_earlier_version_become_names_in_the_data_folder(
    project: Project, home: Path, tmp_path: Path, where: str
) -> None:
    old = home if where == "here" else tmp_path / "original"
    model, run = old_rows(project, old)
    if where == "copied":
        shutil.copytree(home, old)
    migrate()
    model.refresh_from_db()
    run.refresh_from_db()
    assert model.artefact == f"artefacts/models/{HASH}"
    assert run.outputs == {"samples.jsonl": f"artefacts/outputs/{HASH}/samples.jsonl"}
    assert run.result["model"] == {"kind": "full", "base": f"artefacts/models/{HASH}"}
    assert run.snapshots.get().files == {"train": f"artefacts/snapshots/{HASH}/train.jsonl"}


def test_an_outside_store_stays_where_it_is(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "nas"
    (outside / "artefacts" / "models" / HASH).mkdir(parents=True)
    address = f"file://{outside}/artefacts/models/{HASH}"
    assert adopted(address, home, f"file://{home}/artefacts") == address, "a store that was used before"
    shutil.rmtree(outside)
    assert adopted(address, home, f"file://{outside}/artefacts") == address, "a store that is away now"
    assert adopted("s3://bucket/artefacts/models/a", home, "s3://bucket/artefacts") == "s3://bucket/artefacts/models/a"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
