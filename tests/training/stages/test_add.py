"""Adding models that were made elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.training.toys import (
    CHATML,
    events,
    foreign_policy,
    foreign_tokenizer,
    run_folder,
    run_here,
    toy_policy,
    turns,
)
from training.contract import InputError, LoraSettings, Turn
from training.data.chat_format import ChatFormat
from training.models.compute import Compute
from training.models.loading import load_tokenizer
from training.preferences.reward_model import reward_from_language_model, save_reward

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A chat model as others publish theirs, in bf16, with a card."""
    folder = foreign_policy(tmp_path / "source", foreign_tokenizer(CHATML, pad_token="<pad>"))
    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# A model\n")
    (folder / "modeling_own.py").write_text("raise SystemExit\n")
    return folder


def add(tmp_path: Path, base: str | Path, **settings: str) -> tuple[Path, dict[str, Any]]:
    folder = run_folder(tmp_path / "run", {"stage": "add", "base": str(base), **settings})
    return folder, run_here(folder)


def test_a_model_is_copied_as_it_is(source: Path, tmp_path: Path) -> None:
    folder, result = add(tmp_path, source)
    model = folder / "model"
    for name in ("model.safetensors", "config.json", "tokenizer.json", "README.md"):
        assert (model / name).read_bytes() == (source / name).read_bytes(), name
    assert not (model / "modeling_own.py").exists(), "nothing that runs as code comes along"
    assert load_file(model / "model.safetensors")["model.norm.weight"].dtype is torch.bfloat16
    about = result["model"]
    assert (about["kind"], about["license"], about["context"]) == ("full", "apache-2.0", 128)
    assert about["parameters"] > 1000
    assert [event["prompt"] for event in events(folder, "sample")] == ["What is the capital of France?"]


def test_an_adapter_is_merged_into_its_base(source: Path, tmp_path: Path) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(source), LoraConfig(r=2, init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, tmp_path / "adapter" / name)
    ids = torch.tensor([[5, 6, 7]])
    folder, result = add(tmp_path, tmp_path / "adapter")
    assert not (folder / "model" / "adapter_config.json").exists()
    found = AutoModelForCausalLM.from_pretrained(folder / "model").float()(ids).logits
    assert load_file(folder / "model" / "model.safetensors")["model.norm.weight"].dtype is torch.bfloat16
    assert torch.allclose(found, model.float()(ids).logits, atol=2e-2)
    assert result["model"]["kind"] == "full"


def test_a_reward_model_stays_one(tmp_path: Path) -> None:
    base = toy_policy(tmp_path / "base")
    _, model = reward_from_language_model(str(base), CPU, LoraSettings())
    save_reward(model, load_tokenizer(str(base)), tmp_path / "reward", {"max_tokens": 40, "temperature": 1.0})
    with pytest.raises(InputError, match="a reward model keeps the template"):
        add(tmp_path / "templated", tmp_path / "reward", chat_template="chatml")
    folder, result = add(tmp_path, tmp_path / "reward")
    assert (result["model"]["kind"], result["model"]["context"]) == ("reward", 40)
    copied, given = (path / "model.safetensors" for path in (folder / "model", tmp_path / "reward"))
    assert copied.read_bytes() == given.read_bytes()


def test_a_model_without_a_chat_template_is_added_with_a_warning(tmp_path: Path) -> None:
    folder = foreign_policy(tmp_path / "source", foreign_tokenizer(None, pad_token="<pad>"))
    added, _ = add(tmp_path, folder)
    assert any("no chat template" in event["message"] for event in events(added, "warning"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_model_gets_a_template_and_learns_to_use_it(tmp_path: Path, dtype: torch.dtype) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=foreign_tokenizer(None).backend_tokenizer, eos_token="</s>", extra_special_tokens=[]
    )
    source = foreign_policy(tmp_path / "source", tokenizer)
    AutoModelForCausalLM.from_pretrained(source).to(dtype).save_pretrained(source)
    config = {"stage": "add", "base": str(source), "chat_template": "chatml"}
    folder = run_folder(tmp_path / "run", config)
    run_here(folder)
    weights = load_file(folder / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    chat = ChatFormat(load_tokenizer(str(folder / "model")))
    assert chat.tokenizer.decode(chat.prompt([Turn(role="user", content="why?")])).startswith("<|im_start|>user")
    rows = [{"id": f"demonstration:{i}", "messages": turns("is it?", "yes of course")} for i in range(8)]
    sft = {"stage": "sft", "base": str(folder / "model"), "learning_rate": 1e-2, "epochs": 20, "min_rows": 1}
    trained = run_here(run_folder(tmp_path / "sft", sft, demonstrations=rows, heldout=rows[:1]))
    assert trained["metrics"]["heldout_loss"] < 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("code", "runs on code that comes with it"),
        ("pickle", "convert them to safetensors"),
        ("cut", "damaged or incomplete"),
        ("encoder", "no causal language model but BertForMaskedLM"),
        ("missing", "no such model folder"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(source: Path, tmp_path: Path, spoil: str, words: str) -> None:
    config = json.loads((source / "config.json").read_text())
    if spoil == "code":
        (source / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling_own.Own"}}))
    elif spoil == "pickle":
        (source / "model.safetensors").rename(source / "pytorch_model.bin")
    elif spoil == "cut":
        weights = (source / "model.safetensors").read_bytes()
        (source / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    elif spoil == "encoder":
        changed = config | {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
        (source / "config.json").write_text(json.dumps(changed))
    else:
        shutil.rmtree(source)
    with pytest.raises(InputError, match=words):
        add(tmp_path, source)
    assert not (tmp_path / "run" / "model").exists()


def test_without_the_hub_a_name_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="the hub cannot be reached"):
        add(tmp_path, "someone/some-model")
