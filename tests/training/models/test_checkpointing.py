"""Activation checkpointing: the same losses and gradients, from far fewer bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from tests.training.data.test_packing import MODELS, SEQUENCES, model_of
from tests.training.toys import events, prompts, run_folder, run_here, toy_policy, turns
from training.contract import SPECS, InputError, ModelFacts
from training.contract.memory import activation_bytes
from training.data.packing import text_batch
from training.kernels.native import SWITCH, library
from training.models import checkpointing as module
from training.models import llama_training
from training.models.checkpointing import checkpoint_activations
from training.models.forward import Forward
from training.models.loading import CausalModel

CPU = torch.device("cpu")
GIVEN = [[True] * len(ids) for ids in SEQUENCES]


def losses_and_gradients(model: CausalModel, dtype: torch.dtype, *, training: bool = False) -> list[Tensor]:
    forward = Forward(model)
    model.train(training)
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        losses = forward.losses(text_batch(SEQUENCES, GIVEN, 0, CPU))
    losses.sum().backward()
    return [losses.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def adapted(model: PreTrainedModel) -> CausalModel:
    torch.manual_seed(1)
    lora = LoraConfig(r=2, lora_dropout=0.3, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, lora).eval()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_stay_the_same(name: str, dtype: torch.dtype, lora: bool) -> None:
    """Packed rows, padded ones (`window`), the trunk written out (`llama`, `qwen2`), and dropout."""
    found = []
    for checkpointing in (False, True):
        plain = model_of(name)
        if checkpointing:
            checkpoint_activations(plain)
        model = adapted(plain) if lora else plain
        found.append(losses_and_gradients(model, dtype, training=lora))
    assert len(found[0]) == len(found[1]) > 2
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_way_of_a_gpu_has_the_same_gradients_too(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "as-gpu")
    library.cache_clear()
    found = []
    for checkpointing in (False, True):
        model = model_of("qwen3")
        if checkpointing:
            checkpoint_activations(model)
        found.append(losses_and_gradients(model, dtype))
    library.cache_clear()
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def bytes_kept(model: PreTrainedModel) -> int:
    """By a pass for its backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    batch = text_batch([list(range(50))] * 6, [[True] * 50] * 6, 0, CPU)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = Forward(model).losses(batch).sum()
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("written_out", [True, False])
def test_a_pass_keeps_little(written_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_training, "FAMILY", ("llama",) if written_out else ())
    whole, model = bytes_kept(model_of("llama")), model_of("llama")
    checkpoint_activations(model)
    assert bytes_kept(model) < whole / 3


def test_what_is_counted_is_each_layer_s_input_and_one_whole_layer() -> None:
    facts = ModelFacts(layers=10, hidden=100, intermediate=300, heads=4, kv_heads=2, head_dim=25)
    whole = activation_bytes(facts, 2, "cuda", full=False)
    assert activation_bytes(facts, 2, "cuda", full=False, recomputed=True) == whole / 10 + 10 * 2 * 100


def test_an_architecture_without_layers_to_compute_again_is_refused() -> None:
    class Layerless(torch.nn.Module):
        base_model = torch.nn.Linear(2, 2)

    layerless: Any = Layerless()
    with pytest.raises(InputError, match="activation_checkpointing: the layers of Layerless cannot"):
        checkpoint_activations(layerless)


RANKINGS = [
    {"id": f"r{i}", "messages": turns(f"the cat {i}"), "replies": ["yes", "no never"], "groups": [[i % 2], [1 - i % 2]]}
    for i in range(10)
]
FEW: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pretrain": (
        {"context": 32, "layers": 2, "hidden": 32, "heads": 2},
        {"corpus": [{"id": f"t{i}", "text": "the cat sat on the mat " * 3} for i in range(8)]},
    ),
    "sft": (
        {"lora": {"rank": 2}},
        {"demonstrations": [{"id": f"d{i}", "messages": turns(f"is the sky {i}?", "yes it is")} for i in range(8)]},
    ),
    "reward": ({"min_rows": 5}, {"rankings": RANKINGS}),
    "dpo": ({"min_rows": 5}, {"rankings": RANKINGS}),
    "kto": ({"min_rows": 5}, {"rankings": RANKINGS}),
    "ppo": ({"reward": "function:digits", "prompts_per_step": 4, "value_warmup": 0}, {"prompts": prompts(4)}),
    "grpo": ({"reward": "function:digits", "prompts_per_step": 2, "samples_per_prompt": 2}, {"prompts": prompts(4)}),
}


@pytest.mark.fp32
@pytest.mark.parametrize("stage", [name for name, spec in SPECS.items() if spec.learns])
def test_every_stage_that_learns_computes_its_layers_again(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, data = FEW[stage]
    source = {"pretrain": "tokenizer", "sft": "base", "reward": "base"}.get(stage, "policy")
    config = {"stage": stage, source: str(toy_policy(tmp_path / "base")), "log_every": 1} | settings
    config |= {"steps": 2, "sampling": {"max_new_tokens": 4}} if stage in ("ppo", "grpo") else {"max_steps": 2}
    changed = []
    monkeypatch.setattr(
        module, "checkpoint_activations", lambda model: (changed.append(model), checkpoint_activations(model))
    )
    monkeypatch.setattr("training.models.loading.checkpoint_activations", module.checkpoint_activations)
    losses = []
    for checkpointing in (False, True):
        folder = run_folder(tmp_path / str(checkpointing), config | {"activation_checkpointing": checkpointing}, **data)
        run_here(folder)
        assert len(changed) == checkpointing
        losses.append([event["values"]["loss"] for event in events(folder, "metric") if "loss" in event["values"]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=1e-6)
