"""How big the sample project is and how each stage is set: chosen so that two CPU cores need about ten minutes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from webapp.demo.world import WorldSizes

Config = dict[str, Any]
SAMPLING: Final[Config] = {"temperature": 1.0, "max_new_tokens": 64}


@dataclass(frozen=True)
class Plan:
    """Sizes of the world, settings of each stage where they differ from the contract's, and what is left for people."""

    sizes: WorldSizes
    configs: dict[str, Config]
    written: int = 40  # demonstrations that go through the writing desk; the rest is imported
    rank_overlap: int = 1  # as many prompts as the labels allow teach most; those held out show how far people agree
    heldout_rank_overlap: int = 3
    left_to_rank: int = 16
    left_to_write: int = 12
    chats: int = 6
    sampling: Config = field(default_factory=lambda: dict(SAMPLING))


PLANS: Final[dict[str, Plan]] = {
    "full": Plan(
        sizes=WorldSizes(),
        configs={
            "corpus": {},
            "tokenizer": {"vocabulary": 1536, "context": 256},
            "pretrain": {
                "layers": 3, "hidden": 160, "heads": 5, "context": 256, "epochs": 6, "learning_rate": 5e-3,
                "batch_tokens": 2048, "micro_tokens": 2048, "evaluate_every": 100, "checkpoint_every": 100,
            },
            "sft": {
                "epochs": 3, "learning_rate": 2e-3, "batch_tokens": 1024, "micro_tokens": 2048,
                "max_tokens": 256, "evaluate_every": 100, "checkpoint_every": 100,
            },
            "reward": {
                "epochs": 2, "learning_rate": 2e-3, "batch_tokens": 4096, "max_tokens": 256,
                "evaluate_every": 50, "checkpoint_every": 50,
            },
            "sample": {"slots": 128},
            "evaluate": {"slots": 128},
            "ppo": {
                "steps": 100, "prompts_per_step": 128, "epochs": 2, "learning_rate": 2.5e-4,
                "kl_coefficient": 0.2, "evaluate_every": 20, "checkpoint_every": 20,
            },
        },
    ),
    "quick": Plan(
        sizes=WorldSizes(
            documents=300, demonstrations=160, rank_prompts=24, ppo_prompts=40, heldout_demonstrations=12,
            heldout_rank_prompts=8, evaluation_prompts=16,
        ),
        configs={
            "corpus": {},
            "tokenizer": {"vocabulary": 512, "context": 256},
            "pretrain": {
                "layers": 1, "hidden": 48, "heads": 2, "context": 256, "max_steps": 12, "learning_rate": 5e-3,
                "batch_tokens": 1024,
            },
            "sft": {"epochs": 1, "learning_rate": 2e-3, "batch_tokens": 1024, "max_tokens": 256},
            "reward": {"epochs": 1, "batch_tokens": 2048, "max_tokens": 256, "min_rows": 5},
            "ppo": {"steps": 2, "prompts_per_step": 8, "epochs": 1},
        },
        written=8, left_to_rank=4, left_to_write=4, chats=2, sampling={"temperature": 1.0, "max_new_tokens": 24},
    ),
}  # fmt: skip
