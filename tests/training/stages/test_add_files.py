"""Adding models that came as one file: packed, or as GGUF."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.training.export.exported import export, family_policy
from tests.training.toys import events, run_folder, run_here, toy_policy
from training.contract import InputError
from training.data.chat_format import ChatFormat
from training.models.gguf_models import end_ids
from training.models.loading import load_tokenizer

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def add(tmp_path: Path, base: Path, name: str = "run") -> tuple[Path, dict[str, Any]]:
    folder = run_folder(tmp_path / name, {"stage": "add", "base": str(base)})
    return folder, run_here(folder)


@pytest.mark.parametrize("form", ["zip", "gztar"])
def test_a_packed_folder_is_added_as_it_is(tmp_path: Path, form: str) -> None:
    source = toy_policy(tmp_path / "up" / "toy")
    archive = Path(shutil.make_archive(str(tmp_path / "toy"), form, tmp_path / "up"))
    folder, result = add(tmp_path, archive)
    assert (folder / "model" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert result["model"]["kind"] == "full"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["data", "model"], (
        "what was unpacked goes"
    )
    assert {event["phase"] for event in events(folder, "progress")} >= {"unpacking MB", "copying MB"}


@pytest.mark.parametrize(
    ("kind", "family", "changed"),
    [
        ("llama", "smollm", {"tie_word_embeddings": True}),
        ("llama", "llama-bpe", {"rope_parameters": LLAMA3_ROPE, "head_dim": 16, "tie_word_embeddings": False}),
        ("qwen2", "qwen2", {"tie_word_embeddings": False}),
        ("qwen3", "qwen2", {}),
    ],
)
def test_what_was_exported_as_gguf_comes_back_with_the_same_numbers_and_words(
    tmp_path: Path, kind: str, family: str, changed: dict[str, Any]
) -> None:
    base = family_policy(tmp_path / "base", kind, family, taught=True, **changed)
    output, _ = export(tmp_path / "exported", base, "gguf-f16", name="tiny")
    folder, result = add(tmp_path, output / "tiny-f16.gguf")
    given = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    found = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    ids = torch.randint(0, 250, (1, 200), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(found(ids).logits, given(ids).logits, atol=2e-3)
    assert next(iter(load_file(folder / "model" / "model.safetensors").values())).dtype is torch.float16
    texts = ["don't they'll 12 345\n\n  x = [1, 2]", "Où est-ce? 图书馆 😀"]
    old, new = load_tokenizer(str(base)), load_tokenizer(str(folder / "model"))
    assert [new(text)["input_ids"] for text in texts] == [old(text)["input_ids"] for text in texts]
    assert new.chat_template == old.chat_template
    assert ChatFormat(new).stop_ids[0] == ChatFormat(old).stop_ids[0]
    generation = json.loads((folder / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == ChatFormat(old).stop_ids
    assert result["model"]["context"] == 256
    assert [event["prompt"] for event in events(folder, "sample")] == ["What is the capital of France?"]
    assert "quantization_config" not in json.loads((folder / "model" / "config.json").read_text())


@pytest.mark.parametrize(
    ("named", "ends"),
    [
        ({"eos": 7}, [7]),
        ({"eot": 9, "eos": 7, "eom": 8}, [9, 7, 8]),
        ({"eot": 7, "eos": 7, "eom": 99}, [7]),
        ({"eos": "seven"}, []),
        ({}, []),
    ],
)
def test_every_end_that_a_gguf_file_names_is_kept(tmp_path: Path, named: dict[str, Any], ends: list[int]) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for name, value in named.items():
        key = f"tokenizer.ggml.{name}_token_id"
        if isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    assert end_ids(gguf.GGUFReader(tmp_path / "m.gguf"), 20) == ends


def test_errors_name_the_file_and_no_place_on_the_machine(tmp_path: Path) -> None:
    source = toy_policy(tmp_path / "up" / "toy")
    weights = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    archive = Path(shutil.make_archive(str(tmp_path / "toy"), "zip", tmp_path / "up"))
    with pytest.raises(InputError, match=r"^toy\.zip: this model folder is damaged") as refused:
        add(tmp_path, archive)
    assert str(tmp_path) not in refused.value.message


def test_a_zip_may_hold_a_gguf_file(tmp_path: Path) -> None:
    base = family_policy(tmp_path / "base", "llama", "smollm", taught=True)
    output, _ = export(tmp_path / "exported", base, "gguf-q8_0", name="tiny")
    (tmp_path / "up").mkdir()
    (output / "tiny-q8_0.gguf").rename(tmp_path / "up" / "tiny.gguf")
    _, result = add(tmp_path, Path(shutil.make_archive(str(tmp_path / "tiny"), "zip", tmp_path / "up")))
    assert result["model"]["kind"] == "full"


def written(path: Path, architecture: str, kind: str = "model", rope: Any = None) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), dtype=np.float32))
    if rope is not None:
        writer.add_tensor("rope_freqs.weight", rope)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("architecture", "of the architecture mpt cannot be read here"),
        ("encoder", "of the architecture t5 cannot be read here"),
        ("adapter", "no whole model but an adapter"),
        ("rope", "scales the rotary embeddings of qwen2"),
        ("text", "this GGUF file cannot be read"),
        ("cut", "this GGUF file cannot be read"),
        ("missing", "there is no such"),
    ],
)
def test_gguf_files_that_cannot_be_read_are_refused_with_a_sentence(tmp_path: Path, spoil: str, words: str) -> None:
    path = tmp_path / "model.gguf"
    if spoil == "text":
        path.write_text("this is no model")
    elif spoil == "cut":
        whole = written(path, "llama").read_bytes()
        path.write_bytes(whole[: len(whole) - 700])
    elif spoil == "rope":
        written(path, "qwen2", rope=np.ones(4, dtype=np.float32))
    elif spoil != "missing":
        architecture = {"architecture": "mpt", "encoder": "t5"}.get(spoil, "llama")
        written(path, architecture, "adapter" if spoil == "adapter" else "model")
    with pytest.raises(InputError, match=words):
        add(tmp_path, path)
    assert not (tmp_path / "run" / "model").exists()
