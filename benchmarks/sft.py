"""Tokens a second of supervised fine-tuning: 7.4 million parameters, rows of 20 to 400 tokens. Higher is better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks._training import (
    SMALL,
    Row,
    arguments,
    compare,
    policy_folder,
    run_folder,
    run_stage,
    script,
    text,
    turns,
)

ROWS, STEPS, BATCH_TOKENS = 2000, 40, 4096
FORMAT_TOKENS = 5  # role tokens, one word of a question, end tokens


def main(argv: Sequence[str]) -> None:
    options = arguments("sft", __doc__, argv)
    compare("sft", options, measure, peer=script(options, r"tok/s=(\d+)"))


def measure(scratch: Path) -> tuple[float, float, Row]:
    rng = np.random.default_rng(1)
    rows = [
        {"id": f"row:{i}", "messages": turns("t0", text(rng, length - FORMAT_TOKENS))}
        for i, length in enumerate(rng.integers(20, 400, ROWS).tolist())
    ]
    config = {
        "stage": "sft", "base": str(policy_folder(scratch / "base", SMALL)), "max_steps": STEPS,
        "batch_tokens": BATCH_TOKENS, "micro_tokens": BATCH_TOKENS, "evaluate_every": 0, "checkpoint_every": 0,
    }  # fmt: skip
    outcome = run_stage("sft", run_folder(scratch / "run", config, demonstrations=rows))
    metrics = outcome.result["metrics"]
    return metrics["tokens_per_second"], outcome.peak_gb, {"steps": int(metrics["steps"])}
