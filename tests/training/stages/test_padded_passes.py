"""Models that cannot compute on packed sequences: padding counts into the tokens of a pass, and the log says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.training.toys import events, run_folder, run_here, tiny_folder, turns
from training.data.packing import Packed
from training.models.trunk import Trunk
from training.preferences import reward_model
from training.stages import evaluate

WORDS = "the cat sat on the mat yes of course "
BUDGET = 128
ONCE: dict[str, Any] = {"checkpoint_every": 0, "evaluate_every": 0}
CONVERSATIONS = [turns("the cat", "yes " + WORDS[: (2 if i % 5 else 30)]) for i in range(20)]
DEMONSTRATIONS = [{"id": f"d{i}", "messages": messages} for i, messages in enumerate(CONVERSATIONS)]
RANKINGS = [
    {
        "id": f"r{i}",
        "messages": turns(f"the cat {i}" + ("" if i % 5 else WORDS[:20])),
        "replies": ["yes", "no never", "the mat"],
        "groups": [[i % 3], [(i + 1) % 3], [(i + 2) % 3]],
    }
    for i in range(20)
]
PROMPTS = [{"id": f"p{i}", "messages": turns("the cat" + ("" if i % 5 else WORDS[:25]))} for i in range(20)]
TEXTS = [{"id": "t", "text": WORDS * 20}]

RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pretrain": ({"base": "MODEL", "context": 60, "max_steps": 2, "batch_tokens": 300, **ONCE}, {"corpus": TEXTS}),
    "sft": (
        {"base": "MODEL", "max_tokens": 60, "max_steps": 2, **ONCE},
        {"demonstrations": DEMONSTRATIONS, "heldout": DEMONSTRATIONS},
    ),
    "reward": ({"base": "MODEL", "max_tokens": 60, "max_steps": 2, **ONCE}, {"rankings": RANKINGS}),
    "ppo": (
        {
            "policy": "MODEL", "reward": "function:digits", "steps": 1, "prompts_per_step": 20, "value_warmup": 0,
            "sampling": {"max_new_tokens": 12}, "ptx_weight": 1.0, "batch_tokens": 300, **ONCE,
        },
        {"prompts": PROMPTS, "heldout": PROMPTS, "corpus": TEXTS},
    ),
    "evaluate": (
        {"policy": "MODEL", "baseline": "MODEL", "max_tokens": 60, "sampling": {"max_new_tokens": 12}},
        {"text": TEXTS, "demonstrations": DEMONSTRATIONS, "prompts": PROMPTS},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("base"), "mistral")


@pytest.mark.parametrize("stage", RUNS)
def test_no_pass_computes_more_tokens_than_it_may(
    stage: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[int, int]] = []
    padded = Trunk._padded

    def noted(self: Trunk, packed: Packed) -> Tensor:
        passes.append((len(packed.lengths), int(packed.lengths.max())))
        return padded(self, packed)

    monkeypatch.setattr(Trunk, "_padded", noted)
    for module in (evaluate, reward_model):
        monkeypatch.setattr(module, "MICRO_TOKENS", BUDGET)
    settings, data = RUNS[stage]
    config = {"stage": stage, **{name: str(base) if value == "MODEL" else value for name, value in settings.items()}}
    if stage != "evaluate":
        config["micro_tokens"] = BUDGET
    folder = run_folder(tmp_path, config, **data)
    run_here(folder)
    tokens = [rows * longest for rows, longest in passes]
    assert len(tokens) > 2
    smallest_row = 3 if stage == "reward" else 1  # the replies of a ranking stay together
    over = [size for size, (rows, _) in zip(tokens, passes, strict=True) if size > BUDGET and rows > smallest_row]
    assert not over
    assert max(tokens) > BUDGET / 2
    (told,) = [event["message"] for event in events(folder, "warning") if "padded" in event["message"]]
    assert "layers of this mistral model look back 48 tokens only" in told
