"""Dropout of the architecture itself: fine-tuning has it; stages that compare numbers of the same tokens do not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.stages.test_padded_passes import DEMONSTRATIONS, ONCE, PROMPTS, RANKINGS
from tests.training.toys import run_folder, run_here, tiny_folder

LABELS: dict[str, Any] = {"max_tokens": 60, "max_steps": 1, "min_rows": 1, **ONCE}
ROLLS: dict[str, Any] = {
    "reward": "function:digits", "steps": 1, "prompts_per_step": 2, "sampling": {"max_new_tokens": 4}, **ONCE,
}  # fmt: skip
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sft": ("base", LABELS, {"demonstrations": DEMONSTRATIONS}),
    "reward": ("base", LABELS, {"rankings": RANKINGS}),
    "dpo": ("policy", LABELS, {"rankings": RANKINGS}),
    "kto": ("policy", LABELS, {"rankings": RANKINGS}),
    "ppo": ("policy", {**ROLLS, "value_warmup": 0}, {"prompts": PROMPTS}),
    "grpo": ("policy", {**ROLLS, "samples_per_prompt": 4}, {"prompts": PROMPTS}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("base"), "gpt2")  # whose dropout is 0.1 by default


@pytest.mark.parametrize("stage", RUNS)
def test_only_fine_tuning_drops_what_the_architecture_drops(
    stage: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: Counter[bool] = Counter()
    forward = nn.Dropout.forward

    def noted(self: nn.Dropout, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            passes[self.training and self.p > 0] += 1
        return forward(self, x)

    monkeypatch.setattr(nn.Dropout, "forward", noted)
    source, settings, data = RUNS[stage]
    run_here(run_folder(tmp_path, {"stage": stage, source: str(base), **settings}, **data))
    assert passes.keys() == {stage == "sft"}
