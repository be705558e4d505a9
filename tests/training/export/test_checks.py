"""Exports that are written wrongly, or not to their end, are not offered."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.export.exported import export
from tests.training.export.test_weights import adapter
from tests.training.toys import events, toy_policy, toy_tokenizer
from training.contract import InputError, RewardSettings, TrainingError
from training.export import hugging_face
from training.models.compute import Compute
from training.preferences.reward_model import reward_from_language_model, save_reward
from training.stages import export as stage


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return toy_policy(tmp_path / "base")


@pytest.fixture
def reward(base: Path, tmp_path: Path) -> Path:
    cpu = Compute(torch.device("cpu"), torch.float32)
    _, model = reward_from_language_model(str(base), cpu, RewardSettings().lora)
    save_reward(model, toy_tokenizer(), tmp_path / "reward", {"max_tokens": 64, "temperature": 1.0})
    return tmp_path / "reward"


def then(write: Callable[..., None], spoil: Callable[[Path], None]) -> Callable[..., None]:
    """A writer whose files are spoiled afterwards; the second argument of all of them is the folder."""

    def written(*arguments: Any) -> None:
        write(*arguments)
        spoil(arguments[1])

    return written


def not_offered(tmp_path: Path, source: Path, form: str, words: str) -> None:
    with pytest.raises(InputError, match=f"not offered: .*{words}"):
        export(tmp_path, source, form)
    assert not (tmp_path / f"export-{form}" / "output").exists()


def test_a_reward_model_gives_the_same_scores(tmp_path: Path, reward: Path) -> None:
    output, result = export(tmp_path, reward, "fp32")
    assert "got the same scores before and after" in result["model"]["checks"][0]
    assert "text-classification" in (output / "README.md").read_text()


def test_a_reward_model_with_one_wrong_number_is_not_offered(
    tmp_path: Path, reward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(target: Path) -> None:
        tensors = load_file(target / "model.safetensors")
        name = next(name for name in tensors if name.endswith("score.weight"))
        tensors[name] = tensors[name] + 0.5
        save_file(tensors, target / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(stage, "write_model", then(hugging_face.write_model, spoil))
    not_offered(tmp_path, reward, "fp32", "its scores differ by up to")


def test_an_adapter_alone_answers_the_same_and_names_its_base(tmp_path: Path, base: Path) -> None:
    output, result = export(tmp_path, adapter(tmp_path / "adapter", base), "adapter")
    assert "prompts were answered by the same tokens" in result["model"]["checks"][0]
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in output.iterdir()}
    assert str(base) not in (output / "adapter_config.json").read_text()
    assert "export the base, too" in events(output.parent, "warning")[0]["message"]


def test_an_adapter_of_another_strength_is_not_offered(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(target: Path) -> None:
        config = json.loads((target / "adapter_config.json").read_text())
        (target / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 600}))

    monkeypatch.setattr(stage, "write_adapter", then(hugging_face.write_adapter, spoil))
    not_offered(tmp_path, adapter(tmp_path / "adapter", base), "adapter", "answers prompt")


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000))
    with pytest.raises(InputError, match=r"GB are needed to write and keep this export, and 0\.0 GB are") as caught:
        export(tmp_path, base, "bf16")
    assert caught.value.code == "disk_full"


def test_a_disk_that_fills_up_leaves_nothing_behind(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(hugging_face, "save_file", full)
        with pytest.raises(TrainingError, match="is full: free some space"):
            export(tmp_path, base, "bf16")
    assert not (tmp_path / "export-bf16" / "output").exists()
    (tmp_path / "export-bf16").rename(tmp_path / "failed")
    export(tmp_path, base, "bf16")
