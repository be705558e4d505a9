"""A model that gets some sums right learns more of them from a reward that checks the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.toys import events, run_folder, run_here, toy_policy, turns

SUMS = [(a, b) for a in range(10) for b in range(10) if a + b < 10]
GRPO = {
    "stage": "grpo", "steps": 100, "prompts_per_step": 55, "samples_per_prompt": 8, "learning_rate": 2e-3, "beta": 0.0,
}  # fmt: skip
PPO = {
    "stage": "ppo", "steps": 150, "prompts_per_step": 220, "epochs": 2, "learning_rate": 1e-3, "kl_coefficient": 0.01,
    "value_learning_rate": 1e-2, "no_end_penalty": 0.5,
}  # fmt: skip


def asked(a: int, b: int) -> list[dict[str, str]]:
    return turns(f"{a}+{b}=")


@pytest.fixture(scope="module")
def half_taught(tmp_path_factory: Any) -> Path:
    """A model that has learned sums of one digit from people who are right twice and wrong twice."""
    folder: Path = tmp_path_factory.mktemp("taught")
    base = toy_policy(folder / "base", hidden=64)
    demonstrations = [
        {
            "id": f"demonstration:{i}",
            "messages": [*asked(a, b), {"role": "assistant", "content": f"{(a + b + wrong) % 10}"}],
        }
        for i, (a, b, wrong) in enumerate((a, b, wrong) for a, b in SUMS for wrong in (0, 0, 1, -1))
    ]
    config = {
        "stage": "sft", "base": str(base), "epochs": 150, "learning_rate": 5e-3, "batch_tokens": 1024,
        "evaluate_every": 0, "checkpoint_every": 0,
    }  # fmt: skip
    run_here(run_folder(folder / "sft", config, demonstrations=demonstrations))
    return folder / "sft" / "model"


def sums(name: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{name}:{10 * a + b}", "messages": asked(a, b), "reference": f"{a} + {b} = {a + b}\n#### {a + b}"}
        for a, b in SUMS
    ]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [GRPO, PPO], ids=["grpo", "ppo"])
def test_a_policy_learns_sums_from_their_answers(half_taught: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    config = settings | {
        "policy": str(half_taught), "rewards": [{"kind": "numeric"}], "evaluate_every": 0, "checkpoint_every": 0,
        "sampling": {"max_new_tokens": 3},
    }  # fmt: skip
    heldout = [*sums("heldout"), *sums("again")]  # each sum twice, for a narrower interval
    result = run_here(run_folder(tmp_path, config, prompts=sums("prompt"), heldout=heldout))
    before, after = (result["intervals"][name] for name in ("heldout_correct_before", "heldout_correct"))
    assert 0.3 < result["metrics"]["heldout_correct_before"] < 0.8
    assert after[0] > before[1]  # the intervals do not meet
    sample = events(tmp_path, "sample")[-1]
    assert sample["reference"].startswith(" + ".join(sample["prompt"].removesuffix("=").split("+")))
