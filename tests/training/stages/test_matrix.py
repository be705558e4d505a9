"""Every stage that learns, in fp32 and bf16, whole or by an adapter, on packed rows and on padded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.stages.test_padded_passes import DEMONSTRATIONS, ONCE, PROMPTS, RANKINGS, TEXTS
from tests.training.toys import events, run_folder, run_here, tiny_folder
from training.models.trunk import Trunk

LABELS: dict[str, Any] = {"max_tokens": 60, "max_steps": 2, "min_rows": 1, "learning_rate": 1e-3, **ONCE}
ROLLS: dict[str, Any] = {
    "reward": "REWARD", "steps": 2, "prompts_per_step": 4, "learning_rate": 1e-3, "max_prompt_tokens": 40,
    "sampling": {"max_new_tokens": 8}, **ONCE,
}  # fmt: skip
STAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pretrain": (
        {"base": "MODEL", "context": 48, "max_steps": 2, "batch_tokens": 300, "learning_rate": 1e-3, **ONCE},
        {"corpus": TEXTS, "heldout": TEXTS},
    ),
    "sft": ({"base": "MODEL", **LABELS}, {"demonstrations": DEMONSTRATIONS, "heldout": DEMONSTRATIONS[:6]}),
    "reward": ({"base": "MODEL", **LABELS}, {"rankings": RANKINGS, "heldout": RANKINGS[:6]}),
    "dpo": ({"policy": "MODEL", **LABELS}, {"rankings": RANKINGS, "heldout": RANKINGS[:6]}),
    "kto": ({"policy": "MODEL", **LABELS}, {"rankings": RANKINGS, "heldout": RANKINGS[:6]}),
    "ppo": (
        {"policy": "MODEL", **ROLLS, "value_warmup": 0, "ptx_weight": 0.5, "batch_tokens": 100},
        {"prompts": PROMPTS, "heldout": PROMPTS[:4], "corpus": TEXTS},
    ),
    "grpo": (
        {"policy": "MODEL", **ROLLS, "samples_per_prompt": 4, "beta": 0.1},
        {"prompts": PROMPTS, "heldout": PROMPTS[:4]},
    ),
}
KINDS = {"packed": "llama", "padded": "mistral"}  # this one has a sliding window


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Policies and reward models by their kind."""
    top, made = tmp_path_factory.mktemp("models"), {}
    for kind in KINDS.values():
        made[kind] = tiny_folder(top / kind, kind)
        config = {"stage": "reward", "base": str(made[kind]), "precision": "fp32", **LABELS}
        run_here(run_folder(top / f"{kind}-reward", config, rankings=RANKINGS))
        made[f"{kind}-reward"] = top / f"{kind}-reward" / "model"
    return made


@pytest.mark.slow
@pytest.mark.parametrize("passes", KINDS)
@pytest.mark.parametrize("rank", [0, 2], ids=["full", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_it_learns_and_computes_as_it_should(
    stage: str,
    precision: str,
    rank: int,
    passes: str,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if stage == "pretrain" and rank:
        pytest.skip("all weights learn in pretraining")
    made: list[tuple[torch.dtype, bool]] = []
    set_up = Trunk.__post_init__

    def noted(self: Trunk) -> None:
        set_up(self)
        made.append((next(self.model.parameters()).dtype, self.packs))

    monkeypatch.setattr(Trunk, "__post_init__", noted)
    kind = KINDS[passes]
    places = {"MODEL": str(models[kind]), "REWARD": str(models[f"{kind}-reward"])}
    settings, data = STAGES[stage]
    config = {name: places.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}
    lora = {"lora": {"rank": rank}} if rank else {}
    folder = run_folder(tmp_path, {"stage": stage, **config, "precision": precision, **lora}, **data)
    result = run_here(folder)
    assert result["metrics"]["skipped" if "skipped" in result["metrics"] else "steps"] in (0, 2)
    assert {packs for _, packs in made} <= {passes == "packed"}, made
    assert made
    if precision == "bf16" and rank:
        assert torch.bfloat16 in {dtype for dtype, _ in made}, "the frozen base is in bf16"
    told = [event["message"] for event in events(folder, "warning") if "padded" in event["message"]]
    assert len(told) == (passes == "padded")
    learned = folder / "model" / ("adapter_model.safetensors" if rank and stage != "reward" else "model.safetensors")
    weights = load_file(learned)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    if learned.name.startswith("adapter"):
        assert any(bool(tensor.abs().max() > 0) for name, tensor in weights.items() if "lora_B" in name)
    else:
        before = load_file(models[kind] / "model.safetensors")
        names = weights.keys() & before.keys()
        assert any(not torch.equal(weights[name].float(), before[name].float()) for name in names)
