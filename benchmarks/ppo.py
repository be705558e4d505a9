"""Seconds of a PPO step, from rollout to update; lower is better.

16.9 million parameters, 32 prompts of 16 to 64 tokens, replies of 128, four epochs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks._training import (
    MIDDLE,
    Row,
    arguments,
    compare,
    policy_folder,
    reward_folder,
    run_folder,
    run_stage,
    script,
    text,
    turns,
)

PROMPTS, AT_ONCE, NEW_TOKENS, EPOCHS, STEPS = 256, 32, 128, 4, 4
FORMAT_TOKENS = 3


def main(argv: Sequence[str]) -> None:
    options = arguments("ppo", __doc__, argv)
    compare("ppo", options, measure, peer=script(options, r"s/step=([\d.]+)", min), best=min)


def measure(scratch: Path) -> tuple[float, float, Row]:
    rng = np.random.default_rng(1)
    rows = [
        {"id": f"prompt:{i}", "messages": turns(text(rng, length - FORMAT_TOKENS))}
        for i, length in enumerate(rng.integers(16, 65, PROMPTS).tolist())
    ]
    config = {
        "stage": "ppo", "policy": str(policy_folder(scratch / "policy", MIDDLE)),
        "reward": str(reward_folder(scratch / "reward", MIDDLE)), "steps": STEPS, "prompts_per_step": AT_ONCE,
        "epochs": EPOCHS, "update_kl_stop": 0, "value_warmup": 0, "sampling": {"max_new_tokens": NEW_TOKENS},
        "learning_rate": 1e-6, "evaluate_every": 0, "checkpoint_every": 0, "micro_tokens": 1536,
    }  # fmt: skip
    outcome = run_stage("ppo", run_folder(scratch / "run", config, prompts=rows))
    phases = {
        name: outcome.metrics(f"time/{name}")[1:] for name in ("rollout", "score", "update")
    }  # the first warms up
    seconds = statistics.median(map(sum, zip(*phases.values(), strict=True)))
    told: Row = {name: f"{statistics.median(values):.2f}" for name, values in phases.items()}
    length = statistics.mean(outcome.metrics("length/mean")[1:])
    return (
        seconds,
        outcome.peak_gb,
        {**told, "reply_tokens": f"{length:.0f}", "gap": f"{statistics.mean(outcome.metrics('val/rollout_gap')):.5f}"},
    )
