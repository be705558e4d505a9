"""Rankings a second that the reward model learns from: 7.4 million parameters, four replies of 10 to 100 tokens to each
prompt of 20 to 200. With --peer, TRL's RewardTrainer learns from the six pairs of each. Higher is better."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks._training import (
    SMALL,
    Peer,
    Row,
    compare,
    own,
    own_peer,
    policy_folder,
    reward_folder,
    run_folder,
    run_stage,
    text,
    turns,
)

RANKINGS, STEPS, BATCH_TOKENS = 400, 20, 8192
REPLIES = 4


def main(argv: Sequence[str]) -> None:
    compare("reward", own_peer("reward", __doc__, argv), measure, peer=trl)


def rankings() -> list[Row]:
    rng = np.random.default_rng(1)
    return [
        {
            "id": f"ranking:{i}",
            "messages": turns(text(rng, int(rng.integers(20, 200)))),
            "replies": [text(rng, int(n)) for n in rng.integers(10, 100, REPLIES)],
            "groups": [[int(k)] for k in rng.permutation(REPLIES)],
        }
        for i in range(RANKINGS)
    ]


def measure(scratch: Path) -> tuple[float, float, Row]:
    rows = rankings()
    config = {
        "stage": "reward", "base": str(policy_folder(scratch / "base", SMALL)), "max_steps": STEPS, "epochs": 10,
        "batch_tokens": BATCH_TOKENS, "micro_tokens": BATCH_TOKENS, "evaluate_every": 0, "checkpoint_every": 0,
    }  # fmt: skip
    outcome = run_stage("reward", run_folder(scratch / "run", config, rankings=rows))
    tokens = sum(
        len(row["messages"][0]["content"].split()) * REPLIES + len(" ".join(row["replies"]).split()) for row in rows
    )
    rate = outcome.result["metrics"]["tokens_per_second"]
    return rate * len(rows) / tokens, outcome.peak_gb, {"tokens_per_second": round(rate)}


def trl(scratch: Path) -> Peer:
    """TRL's trainer at its usual batch of eight pairs, in this environment."""
    pairs = [
        {
            "prompt": row["messages"][0]["content"],
            "chosen": row["replies"][better[0]],
            "rejected": row["replies"][worse[0]],
        }
        for row in rankings()[: RANKINGS // 10]
        for better, worse in combinations(row["groups"], 2)
    ]
    file = scratch / "pairs.json"
    file.write_text(json.dumps(pairs))
    model = reward_folder(scratch / "model", SMALL)
    pairs_a_second = own("reward", str(model), str(file), pattern=r"pairs/s=([\d.]+)")
    return Peer(pairs_a_second.figure / 6, pairs_a_second.peak_gb)
