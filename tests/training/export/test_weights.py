"""Weights on their way out: adapters merged as PEFT merges them, shards, and what does not belong to the model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.training.export.exported import export, family_policy
from tests.training.toys import events, tiny_folder
from training.contract import InputError
from training.export import hugging_face
from training.export.gguf_architectures import Architecture, in_halves, interleaved
from training.export.weights import open_weights
from training.models.adapters import merged


def adapter(folder: Path, base: Path, **settings: Any) -> Path:
    """An adapter with random numbers over the model of a folder."""
    torch.manual_seed(1)
    config = LoraConfig(
        **{"r": 2, "lora_alpha": 6, "target_modules": "all-linear", "init_lora_weights": False, **settings}
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.base_model.model.config._name_or_path = str(base)
    for value in model.peft_config.values():
        value.base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 9}},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [3, 5]},
        {"trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [3, 5]}},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head", "q_proj"]},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_an_adapter_is_merged_as_peft_merges_it(tmp_path: Path, settings: dict[str, Any], tied: bool) -> None:
    base = family_policy(tmp_path / "base", "llama", "smollm", torch.float32, tie_word_embeddings=tied)
    folder = adapter(tmp_path / "adapter", base, **settings)
    expected = merged(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)).state_dict()
    with open_weights(str(folder)) as weights:
        for name in weights.names:
            torch.testing.assert_close(weights.read(name), expected[name], atol=1e-6, rtol=1e-5, msg=name)
        assert not weights.unknown
    _, result = export(tmp_path, folder, "bf16")
    assert result["model"]["checks"] == [
        "10 of 10 prompts were answered by the same tokens, greedily, before and after (bfloat16 both times)."
    ]


def test_an_adapter_of_another_kind_is_refused(tmp_path: Path) -> None:
    base = family_policy(tmp_path / "base", "llama", "smollm")
    folder = adapter(tmp_path / "adapter", base)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"bias": "all"}))
    with pytest.raises(InputError, match="export the adapter alone"):
        export(tmp_path, folder, "bf16")


def test_a_value_head_does_not_go_along(tmp_path: Path) -> None:
    base = family_policy(tmp_path / "base", "llama", "smollm")
    tensors = load_file(base / "model.safetensors")
    save_file(tensors | {"v_head.summary.weight": torch.ones(1, 32)}, base / "model.safetensors", {"format": "pt"})
    output, _ = export(tmp_path, base, "bf16")
    assert set(load_file(output / "model.safetensors")) == set(tensors) - {"lm_head.weight"} | (
        {"lm_head.weight"} if "lm_head.weight" in tensors else set()
    )
    warnings = [event["message"] for event in events(output.parent, "warning")]
    assert any("v_head.summary.weight" in message for message in warnings)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "qwen3", "phi3", "opt"])
def test_other_architectures_leave_as_folders(tmp_path: Path, kind: str) -> None:
    output, result = export(tmp_path, tiny_folder(tmp_path / "base", kind), "fp32")
    assert "answered by the same tokens" in result["model"]["checks"][0]
    assert AutoConfig.from_pretrained(output).model_type == kind


def test_a_large_model_leaves_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "MAX_SHARD_BYTES", 20_000)
    output, result = export(tmp_path, family_policy(tmp_path / "base", "qwen3", "qwen2"), "bf16")
    assert len(list(output.glob("model-*-of-*.safetensors"))) > 2
    assert "answered by the same tokens" in result["model"]["checks"][0]


def test_numbers_too_large_for_fp16_are_refused(tmp_path: Path) -> None:
    base = family_policy(tmp_path / "base", "llama", "smollm", torch.float32)
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    for form, other in (("fp16", "export as bf16"), ("gguf-f16", "export as gguf-bf16")):
        with pytest.raises(InputError, match=f"1e\\+05.*{other}"):
            export(tmp_path, base, form)
        assert not (tmp_path / f"export-{form}" / "output").exists()


def test_the_order_of_rotated_rows() -> None:
    rows = torch.arange(8.0)[:, None]  # two heads of width 4: halves (0, 1) and (2, 3)
    assert interleaved(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(in_halves(interleaved(rows, 2), 2), rows)


def test_llama_3_frequencies_are_divided_as_transformers_divides_them(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    base = family_policy(tmp_path / "base", "llama", "llama-bpe", rope_parameters=rope, head_dim=64)
    config = AutoConfig.from_pretrained(base)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 5e5 ** -(torch.arange(0, 64, 2) / 64)
    factors = Architecture(config).rope_factors()
    assert factors is not None
    torch.testing.assert_close(torch.from_numpy(factors), plain / scaled, rtol=1e-4, atol=0)
    assert math.isclose(factors[-1], 8, rel_tol=1e-5)
    assert factors[0] == 1
    _, result = export(tmp_path, base, "gguf-f16")
    assert "llama.cpp" in result["model"]["checks"][-1]
