"""What the store does with files that are given to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from webapp.errors import Conflict
from webapp.registry.artefacts import hashes_of, open_store, publish_folder


@pytest.fixture
def model(data_folders: Path) -> Path:
    folder = data_folders / "run" / "model"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"numbers")
    (folder / "model.safetensors").chmod(0o600)
    return folder


def test_given_files_take_no_second_place_on_the_disk(model: Path) -> None:
    address = publish_folder(model, folder_name="models", files=hashes_of(model), given=True)
    kept = Path(open_store(address)[1]) / "model.safetensors"
    assert kept.samefile(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    assert kept.read_bytes() == b"numbers"
    assert kept.stat().st_mode & 0o600 == 0o600


def test_files_of_others_are_copied(model: Path) -> None:
    address = publish_folder(model, folder_name="models", files=hashes_of(model))
    (model / "model.safetensors").write_bytes(b"changed")
    assert (Path(open_store(address)[1]) / "model.safetensors").read_bytes() == b"numbers"


@pytest.mark.parametrize("given", [True, False])
def test_a_file_that_is_not_what_its_hash_says_is_refused(model: Path, given: bool) -> None:
    files = hashes_of(model)
    (model / "model.safetensors").write_bytes(b"changed")
    with pytest.raises(Conflict, match="changed while it was copied"):
        publish_folder(model, folder_name="models", files=files, given=given)
