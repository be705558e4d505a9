"""TRL's passes on packed rows give what its own passes on padded batches give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel, Trainer
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from tests.training.toys import tiny_model
from training.models.compute import Compute
from training.models.loading import CausalModel, unwrap
from training.rl.trl.packed_passes import IGNORED, pack_passes

LENGTHS = ((3, 4), (5, 2), (1, 6), (4, 0))  # of prompts, padded on the left, and replies, padded on the right
CPU = Compute(torch.device("cpu"), torch.float32)


def batch(vocabulary: int) -> dict[str, Tensor]:
    """As GRPO's: prompts that end and replies that begin in the same column; one reply is masked as a whole."""
    prompt, reply = max(p for p, _ in LENGTHS), max(r for _, r in LENGTHS)
    mask = torch.tensor([[0] * (prompt - p) + [1] * (p + r) + [0] * (reply - r) for p, r in LENGTHS])
    ids = torch.randint(vocabulary, mask.shape, generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :prompt] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def computed(model: CausalModel, inputs: dict[str, Tensor]) -> tuple[FusedCausalLMOutput, list[Tensor]]:
    output = model(**inputs, fused_lm_head=True)
    model.zero_grad()
    (output.log_probs * torch.arange(1.0, 1 + output.log_probs.shape[1])).sum().backward()
    return output, [p.grad.clone() for p in model.parameters() if p.grad is not None]


def held_against_trl(model: CausalModel, **inputs: Tensor) -> None:
    add_fused_lm_head(unwrap(model), temperature=0.7, outputs=("log_probs", "entropy"))
    theirs, their_gradients = computed(model, inputs)
    pack_passes(cast("Trainer", SimpleNamespace(model=model, ref_model=None)), CPU, 0.7)
    ours, our_gradients = computed(model, inputs)
    for name in ("log_probs", "entropy"):
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-5, rtol=1e-4)
    assert torch.equal(ours["label_mask"], theirs["label_mask"])
    torch.testing.assert_close(our_gradients, their_gradients, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "mistral"])
def test_passes_agree_with_trl(kind: str) -> None:
    model = tiny_model(kind)
    held_against_trl(model, **batch(model.config.get_text_config().vocab_size))


def test_learned_positions_begin_at_the_first_token_and_not_at_its_padding() -> None:
    """TRL's own passes count from the padding, which for GPT-2 is another prompt."""
    model = tiny_model("gpt2")
    inputs = batch(model.config.vocab_size)
    row = inputs["input_ids"][2:3, 4:]
    with torch.no_grad():
        logprobs = model(input_ids=row).logits[0, :-1].log_softmax(dim=-1)
        add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        pack_passes(cast("Trainer", SimpleNamespace(model=model, ref_model=None)), CPU)
        ours = model(**inputs, fused_lm_head=True).log_probs
    torch.testing.assert_close(ours[2, 4:], logprobs.gather(1, row[0, 1:, None])[:, 0], atol=2e-5, rtol=1e-4)


def test_an_adapter_and_the_model_under_it_agree_with_trl() -> None:
    base: PreTrainedModel = tiny_model("llama")
    model: Any = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    inputs = batch(base.config.vocab_size)
    held_against_trl(model, **inputs)
    ours = model(**inputs, fused_lm_head=True).log_probs
    with model.disable_adapter(), torch.no_grad():
        under = model(**inputs, fused_lm_head=True).log_probs
        logits = base(input_ids=inputs["input_ids"][2:3, 4:]).logits[0] / 0.7
    assert (ours - under).abs().max() > 1e-3
    expected = logits[:-1].log_softmax(dim=-1).gather(1, inputs["input_ids"][2, 5:, None])[:, 0]
    torch.testing.assert_close(under[2, 4:], expected, atol=2e-5, rtol=1e-4)


def test_a_batch_without_labels_gives_zeros_and_no_gradient() -> None:
    model = tiny_model("llama")
    inputs = batch(model.config.vocab_size)
    inputs["labels"] = torch.full_like(inputs["labels"], IGNORED)
    add_fused_lm_head(model)
    pack_passes(cast("Trainer", SimpleNamespace(model=model, ref_model=None)), CPU)
    output, gradients = computed(model, inputs)
    assert not output.log_probs.any()
    assert not any(bool(gradient.any()) for gradient in gradients)


def test_other_calls_reach_the_model_as_they_are() -> None:
    model = tiny_model("llama")
    ids = torch.arange(6)[None]
    logits = model(input_ids=ids).logits
    add_fused_lm_head(model)
    pack_passes(cast("Trainer", SimpleNamespace(model=model, ref_model=None)), CPU)
    assert torch.equal(model(input_ids=ids).logits, logits)
