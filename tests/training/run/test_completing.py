from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.training.toys import toy_policy
from training.contract import CONFIG_FILE, InputError, LoraSettings, Settings
from training.run.completing import complete_config


def model_folder(folder: Path, parameters: int) -> str:
    """A folder that says it has so many parameters, without them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 64, "num_hidden_layers": 2}))
    header = json.dumps(
        {"weight": {"dtype": "BF16", "shape": [parameters], "data_offsets": [0, 2 * parameters]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return str(folder)


def config(stage: str, **values: Any) -> Settings:
    return CONFIG_FILE.validate_python({"stage": stage, **values})


def test_a_real_model_s_run_without_a_learning_rate_gets_one_that_suits_it_and_says_so(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "m", 135_000_000)
    settings, remarks = complete_config(config("sft", base=source))
    assert settings.model_dump()["learning_rate"] == 2e-5
    assert remarks == ["learning_rate is 2e-05, which config.json leaves out: Zephyr 7B's recipe, and TRL's default"]
    settings, remarks = complete_config(config("ppo", policy=source, lora={"rank": 8}))
    assert settings.model_dump(include={"learning_rate", "value_learning_rate", "prompts_per_step"}) == {
        "learning_rate": 1e-5, "value_learning_rate": 9e-5, "prompts_per_step": 32,
    }  # fmt: skip
    assert len(remarks) == 2


def test_a_learning_rate_that_is_named_stays(tmp_path: Path) -> None:
    settings, remarks = complete_config(config("sft", base=model_folder(tmp_path, 135_000_000), learning_rate=3e-4))
    assert (settings.model_dump()["learning_rate"], remarks) == (3e-4, [])


def test_toys_and_models_from_nothing_keep_the_defaults(tmp_path: Path) -> None:
    for before in (config("sft", base=str(toy_policy(tmp_path / "toy"))), config("pretrain", tokenizer="t")):
        assert complete_config(before) == (before, [])


def test_a_model_of_the_hub_gets_the_careful_rate() -> None:
    settings, _ = complete_config(config("dpo", policy="org/model"))
    assert settings.model_dump()["learning_rate"] == 5e-7


def test_an_adapter_is_as_large_as_its_base(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", 135_000_000)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"r": 8, "base_model_name_or_path": base}))
    settings, _ = complete_config(config("dpo", policy=str(tmp_path / "adapter"), lora={"rank": 8}))
    assert settings.model_dump()["learning_rate"] == 1e-5


def test_a_recipe_fills_in_what_the_config_leaves_out() -> None:
    settings, remarks = complete_config(config("ppo", policy="m", steps=7, lora={"rank": 4}), "gpu-24gb-1b")
    values = settings.model_dump()
    assert (values["steps"], values["learning_rate"]) == (7, 5e-6)
    assert values["lora"] == {**LoraSettings().model_dump(), "rank": 4, "alpha": 32.0}
    assert "1B on one 24 GB GPU" in remarks[0]
    with pytest.raises(InputError, match="no settings for sample"):
        complete_config(config("sample"), "gpu-24gb-1b")
