"""SimPO and ORPO: preference losses without a reference model, computed by TRL's experimental trainers from token ids
that are ours."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # TRL warns that these trainers may change; its version is pinned

from transformers import Trainer, TrainingArguments
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from training.contract import DPOSettings
from training.rl.trl.packed_passes import IGNORED


class ReferenceFree(NamedTuple):
    """TRL's classes for a loss, and their own arguments."""

    trainer: type[Trainer]
    arguments: type[TrainingArguments]
    settings: dict[str, Any]


def reference_free(config: DPOSettings) -> ReferenceFree:
    """SimPO (Meng et al. 2024, arXiv:2405.14734) is CPO's loss without its likelihood term; ORPO is Hong et al. 2024,
    arXiv:2403.07691."""
    if config.loss == "orpo":
        return ReferenceFree(ORPOTokenTrainer, ORPOConfig, {"beta": config.orpo_weight})
    settings = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": config.simpo_beta, "simpo_gamma": config.simpo_margin}
    return ReferenceFree(SimPOTokenTrainer, CPOConfig, settings)


def tokenized_pair(example: dict[str, Any]) -> dict[str, list[int]]:
    """A pair of token ids as TRL's collator wants it, in place of TRL's own tokenizing, which would take what looks
    like special tokens in people's text for such."""
    prompt = example["prompt_ids"]
    columns = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for side in ("chosen", "rejected"):
        reply = example[f"{side}_ids"]
        columns |= {
            f"{side}_input_ids": [*prompt, *reply],
            f"{side}_attention_mask": [1] * (len(prompt) + len(reply)),
            f"{side}_labels": [IGNORED] * len(prompt) + list(reply),
        }
    return columns


class SimPOTokenTrainer(CPOTrainer):
    def tokenize_row(self, feature: dict[str, Any], *_: Any, **__: Any) -> dict[str, list[int]]:
        return tokenized_pair(feature)


class ORPOTokenTrainer(ORPOTrainer):
    def tokenize_row(self, feature: dict[str, Any], *_: Any, **__: Any) -> dict[str, list[int]]:
        return tokenized_pair(feature)
