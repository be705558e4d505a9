"""Another value for every setting of every stage, and what has to be set beside it for the setting to matter.

A new setting needs a line here: `tests/training/stages/test_settings.py` fails without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from pydantic import BaseModel

from tests.training.toys import turns
from training.contract.settings import Settings


@dataclass(frozen=True)
class Case:
    """One setting with another `value` than the default. `beside`: what both runs have in common; dotted names."""

    value: Any
    beside: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    """A part of the sentence with which the value is refused, in place of a difference."""
    slow: bool = False


def case(value: Any, *, refused: str = "", slow: bool = False, **beside: Any) -> Case:
    """`beside` is named with two underscores where a setting has a dot, as lora__rank."""
    return Case(value, {name.replace("__", "."): other for name, other in beside.items()}, refused, slow)


def slow(cases: Mapping[str, Case]) -> dict[str, Case]:
    """For settings that do in a faster stage what they do here, and for stages that take a second or two."""
    return {name: replace(each, slow=True) for name, each in cases.items()}


def setting_names(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of everything that a person may set; sources, which name models, are not among them."""
    for name, info in settings.model_fields.items():
        kind = info.annotation
        extra = info.json_schema_extra
        if name == "stage" or (isinstance(extra, dict) and "source" in extra):
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from setting_names(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


# ------------------------------------------------------------------------------------------- rows that all stages read

DEMONSTRATIONS: Final = [
    {"id": f"d{i}", "messages": turns(f"is the cat {i}?", ("yes of course", "no never the sea")[i % 2])}
    for i in range(6)
] + [{"id": "long", "messages": turns("the cat sat", "on the mat", "is the sky blue?", "yes of course the sky")}]
RANKINGS: Final = [
    {
        "id": f"r{i}",
        "messages": turns(f"is the cat {i} on the mat?", "yes", f"is the sea {i}?"),
        "replies": ["yes of course", "no never", "the mat"],
        "groups": [[[0], [1], [2]], [[0, 1], [2]], [[2], [0], [1]]][i % 3],
        "strength": 1 + i % 3,
        "annotator": "ab"[i % 2],
    }
    for i in range(6)
]
PROMPTS: Final = [{"id": f"p{i}", "messages": turns(f"the cat {i}")} for i in range(5)] + [
    {"id": "long", "messages": turns("the cat", "sat on the mat", "is the sky blue of course?")}
]
TEXTS: Final = [
    {"id": f"t{i}", "text": f"{i} the cat sat on the mat, yes of course the sky is blue " * 3} for i in range(6)
]
DOCUMENTS: Final = (
    [
        {"id": f"c{i}", "text": f"Document {i}: {words}. Write to ada{i}@example.org if you want to know what it says."}
        for i, words in enumerate(
            (
                "the cat sat on the mat because the sun was warm there and nobody wanted it to go away",
                "die Katze saß auf der Matte, denn die Sonne schien dort, und niemand wollte, dass sie geht",
                "ships leave the harbor in the morning and come back in the evening with fish for all of us",
            )
        )
    ]
    + [
        {
            "id": f"near{end}",
            "text": " ".join(f"number{k}" for k in range(40)) + f" {end}",
        }
        for end in ("fourteen", "fifteen")
    ]
    + [{"id": "short", "text": "A short sentence, no more."}]
)

DATA: Final[dict[str, dict[str, list[dict[str, Any]]]]] = {
    "corpus": {"documents": DOCUMENTS},
    "tokenizer": {"corpus": TEXTS},
    "pretrain": {"corpus": TEXTS, "heldout": TEXTS[:2]},
    "sft": {"demonstrations": DEMONSTRATIONS, "heldout": DEMONSTRATIONS[:2]},
    "reward": {"rankings": RANKINGS, "heldout": RANKINGS[:2]},
    "ppo": {"prompts": PROMPTS, "heldout": PROMPTS[:2], "corpus": TEXTS},
    "dpo": {"rankings": RANKINGS, "heldout": RANKINGS[:2]},
    "kto": {"rankings": RANKINGS, "heldout": RANKINGS[:2]},
    "grpo": {"prompts": PROMPTS, "heldout": PROMPTS[:2]},
    "evaluate": {"text": TEXTS[:2], "demonstrations": DEMONSTRATIONS, "rankings": RANKINGS, "prompts": PROMPTS},
    "sample": {"prompts": PROMPTS},
    "add": {},
    "export": {},
    "serve": {},
}

# ------------------------------------------------------------------- what both runs of a stage have, besides their case

LEARNS: Final = {"evaluate_every": 0, "checkpoint_every": 0, "log_every": 1, "learning_rate": 1e-2}
LABELS: Final = {**LEARNS, "min_rows": 1, "max_tokens": 60, "batch_tokens": 64, "max_steps": 3}
ROLLS: Final = {**LEARNS, "steps": 2, "prompts_per_step": 2, "sampling.max_new_tokens": 5}

BASELINES: Final[dict[str, dict[str, Any]]] = {
    "corpus": {},
    "tokenizer": {"vocabulary": 320},
    "pretrain": {**LEARNS, "layers": 1, "hidden": 16, "heads": 2, "context": 16, "batch_tokens": 64, "max_steps": 3},
    "sft": LABELS,
    "reward": LABELS,
    "ppo": {**ROLLS, "epochs": 2, "value_warmup": 0},
    "dpo": LABELS,
    "kto": LABELS,
    "grpo": {**ROLLS, "samples_per_prompt": 4, "epochs": 2},
    "evaluate": {"sampling.max_new_tokens": 5},
    "sample": {"sampling.max_new_tokens": 5},
    "add": {},
    "export": {},
    "serve": {"port": 0, "models": {"toy": "MODEL"}},
}

# ---------------------------------------------------------------------------------------------------------------- cases

COMPUTES: Final = {
    "threads": case(2),
    "device": case("cuda", refused="" if torch.cuda.is_available() else "device: "),
}
SEEDED: Final = COMPUTES | {"seed": case(1)}
TRACKED: Final = {
    "report_to": case(["wandb"]),
    "report_project": case("kites", report_to=["wandb"]),
}
LOOP: Final = (
    SEEDED
    | TRACKED
    | {
        "learning_rate": case(1e-3),
        "micro_tokens": case(32),
        "warmup": case(1.0),
        "schedule": case("constant"),
        "final_lr": case(0.9),
        "weight_decay": case(0.5),
        "beta2": case(0.5),
        "grad_clip": case(1e-3),
        "precision": case("fp32" if os.environ.get("TEST_PRECISION") == "bf16" else "bf16"),
        "minutes": case(1e-9),
        "log_every": case(2),
        "evaluate_every": case(1),
        "checkpoint_every": case(1),
        "keep_checkpoints": case(1, checkpoint_every=1),
        "tensorboard": case(True),
        "processes": case(2, refused="processes: this run computes on a CPU"),
        "activation_checkpointing": case(True),
        "optimizer": case("adamw_8bit", refused="needs the library bitsandbytes"),
    }
)
SHARDED: Final = {"shard": case(True, refused="shard: one process has nothing to share")}
BATCHES: Final = {"batch_tokens": case(128)}
TRL_PASSES: Final = {"batch_tokens": case(1024), "micro_tokens": case(64, batch_tokens=1024)}
LORA: Final = {
    "lora.rank": case(2),
    "lora.alpha": case(64.0, lora__rank=2),
    "lora.targets": case("q_proj", lora__rank=2),
    "lora.use_dora": case(True, lora__rank=2),
    "lora.use_rslora": case(True, lora__rank=2),
    "lora.modules_to_save": case("down_proj", lora__rank=2),
    "lora.load_in_4bit": case(True, lora__rank=2, refused="needs the library bitsandbytes"),
}
DROPOUT: Final = {"lora.dropout": case(0.5, lora__rank=2)}
FROM_LABELS: Final = BATCHES | {
    "epochs": case(2.0, max_steps=0),
    "max_steps": case(2),
    "max_tokens": case(17),
    "min_rows": case(100, refused="at least 100"),
}
SAMPLING: Final = {
    "sampling.temperature": case(0.5),
    "sampling.top_p": case(0.2),
    "sampling.top_k": case(2),
    "sampling.max_new_tokens": case(3),
    "long_prompts": case("shorten", max_prompt_tokens=12),
}
REWARDS: Final = {
    "rewards": case([{"kind": "length", "maximum": 1}]),
    "pessimism": case(5.0, reward=["REWARD", "OTHER REWARD"]),
}
ROLLOUTS: Final = SAMPLING | REWARDS | {
    "steps": case(1),
    "prompts_per_step": case(4),
    "samples_per_prompt": case(2),
    "max_prompt_tokens": case(12),
    "epochs": case(1),
    "minibatches": case(2, samples_per_prompt=4),
    "clip": case(1e-4, epochs=4),
    "shaping": case("brevity=1"),
    "min_rows": case(100, refused="at least 100"),
}  # fmt: skip

CASES: Final[dict[str, dict[str, Case]]] = {
    "corpus": {
        "min_chars": case(10),
        "max_chars": case(100),
        "near_duplicates": case(1.0),
        "language": case("de"),
        "strip_personal_data": case(False),
        "heldout_fraction": case(0.5),
    },
    "tokenizer": {"threads": case(2), "vocabulary": case(310), "context": case(128)},
    "pretrain": LOOP | SHARDED | BATCHES | {
        "layers": case(2),
        "hidden": case(32),
        "heads": case(4),
        "kv_heads": case(1),
        "context": case(32),
        "epochs": case(2.0, max_steps=0),
        "max_steps": case(2),
    },
    "sft": slow(LOOP | SHARDED) | LORA | DROPOUT | FROM_LABELS,
    "reward": slow(LOOP | SHARDED | LORA | DROPOUT | FROM_LABELS) | {
        "ties": case("davidson"),
        "ensemble": case(2),
        "annotator_reliability": case(True),
        "margin": case(1.0),
        "centring": case(1.0),
    },
    "dpo": slow(LOOP | LORA | FROM_LABELS | TRL_PASSES) | {
        "beta": case(1.0),
        "loss": case("ipo"),
        "label_smoothing": case(0.3, loss="robust", label_smoothing=0.1, slow=True),
        "simpo_beta": case(5.0, loss="simpo", slow=True),
        "simpo_margin": case(0.1, loss="simpo", slow=True),
        "orpo_weight": case(1.0, loss="orpo", slow=True),
    },
    "kto": slow(LOOP | LORA | FROM_LABELS | TRL_PASSES) | {
        "beta": case(1.0),
        "desirable_weight": case(3.0),
        "undesirable_weight": case(3.0),
    },
    "ppo": slow(LOOP | SHARDED | LORA) | ROLLOUTS | {
        "batch_tokens": case(128, ptx_weight=1.0),
        "value_learning_rate": case(1e-3),
        "kl_coefficient": case(1.0),
        "kl_target": case(0.1),
        "kl_horizon": case(2, kl_target=0.1),
        "kl_estimator": case("k3"),
        "update_kl_stop": case(1e-9),
        "gamma": case(0.5),
        "gae_lambda": case(0.5),
        "value_clip": case(1e-4),
        "critic": case("own", reward="REWARD"),
        "value_weight": case(1.0),
        "entropy_weight": case(0.5),
        "whiten_advantages": case(False),
        "normalize_rewards": case(False),
        "reward_clip": case(0.01),
        "no_end_penalty": case(5.0),
        "length_penalty": case(10.0),
        "ptx_weight": case(1.0),
        "value_warmup": case(1),
    },
    "grpo": slow(LOOP | LORA | ROLLOUTS | {
        "beta": case(0.5),
        "clip_high": case(1e-4, epochs=4),
        "scale_rewards": case(False),
        "loss": case("dr_grpo"),
        "ratio": case("sequence", loss="grpo"),
        "mask_truncated": case(True),
        "keep_checkpoints": case(1, checkpoint_every=1, steps=3),
        "dynamic_sampling": case(2),
    }),
    "evaluate": slow(SEEDED | TRACKED | SAMPLING | REWARDS) | {
        "max_tokens": case(16),
        "slots": case(1),
        "long_prompts": case("shorten", sampling__max_new_tokens=50),
    },
    "sample": SEEDED | SAMPLING | REWARDS | {
        "replies": case(2),
        "distinct": case(False, sampling__max_new_tokens=1, sampling__top_k=4),
        "max_prompt_tokens": case(12),
        "slots": case(1),
    },
    "add": COMPUTES | {
        "revision": case("v1", refused="revision: "),
        "chat_template": case("chatml", base="BARE"),
    },
    "export": slow(COMPUTES | {
        "format": case("fp32"),
        "name": case("mine", format="gguf-f16"),
        "push_to": case("ada/kite"),
        "public": case(True, push_to="ada/kite"),
    }),
    "serve": COMPUTES | {
        "host": case("127.0.0.2"),
        "port": case(48_765),
        "models": case({"toy": "MODEL", "other": "MODEL"}),
        "slots": case(2),
        "max_models": case(1, models={"toy": "MODEL", "other": "TWIN"}),
        "default_max_tokens": case(2),
        "kv_cache_gb": case(0.001),
        "token": case("secret"),
        "weights": case("int8"),
    },
}  # fmt: skip


def has_all_settings(stage: str, settings: type[Settings]) -> set[str]:
    """Settings without a case, and cases without a setting."""
    return set(setting_names(settings)) ^ set(CASES[stage])
