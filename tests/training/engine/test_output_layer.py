"""Engine and trainer give what was sampled the same log-probability, in bf16 as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.toys import toy_policy
from training.data.packing import pack
from training.engine import Engine, EngineRequest, SamplingParams
from training.engine import llama_inference as engine_forward
from training.kernels import logprobs
from training.kernels.native import SWITCH
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import load_causal, load_tokenizer

BF16 = Compute(torch.device("cpu"), torch.bfloat16)
SCALE = 10.0  # of the last states, so that logits are as large as those of real models
PROMPTS = [[3, 4, 5 + i] for i in range(32)]


def rollout_gap(folder: str) -> float:
    """Nats per token by which the engine, with weights in bf16, and the trainer, with weights in fp32, differ."""
    model = load_causal(folder, BF16, trainable=True)
    model.model.norm.weight.data.mul_(SCALE)
    forward = Forward(model)
    engine = Engine(model, load_tokenizer(folder), slots=32, stop_ids=[], dtype=torch.bfloat16)
    params = SamplingParams(max_new_tokens=12, seed=0)
    total, count = 0.0, 0
    for prompt, reply in zip(PROMPTS, engine.generate([EngineRequest(ids, params) for ids in PROMPTS]), strict=True):
        packed = pack([[*prompt, *reply.tokens]], 0)
        states = slice(len(prompt) - 1, len(prompt) - 1 + len(reply.tokens))
        with torch.no_grad(), BF16.autocast():
            ours = forward.read(forward.hidden(packed)[states], torch.tensor(reply.tokens)).logprobs
        total += float((ours - torch.tensor(reply.logprobs)).abs().sum())
        count += len(reply.tokens)
    return total / count


def test_logits_in_float32_bring_engine_and_trainer_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "as-gpu")
    folder = str(toy_policy(tmp_path / "policy"))
    exact = rollout_gap(folder)

    def rounds(_: Any) -> bool:
        return False

    monkeypatch.setattr(logprobs, "gives_float32", rounds)
    monkeypatch.setattr(engine_forward, "gives_float32", rounds)
    assert exact < 0.85 * rollout_gap(folder)  # the states are still rounded
