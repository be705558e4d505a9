"""An index of shards names files of its own folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.contract import InputError
from training.models.checks import check_weights


@pytest.mark.parametrize(
    "shard", ["../other/model.safetensors", "/etc/passwd", "inner/model.safetensors", "..", 7, None]
)
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path: Path, shard: Any) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(InputError, match=r"not a file of this folder"):
        check_weights(str(tmp_path), "model")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', "\x00"])
def test_an_index_that_is_none_is_damaged(tmp_path: Path, text: Any) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError, match=r"damaged"):
        check_weights(str(tmp_path), "model")


def test_an_index_of_its_own_files_is_fine(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").touch()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    check_weights(str(tmp_path), "model")
