"""The DPO stage: learns a policy from rankings without a reward model (Rafailov et al. 2023, arXiv:2305.18290).

TRL's DPOTrainer computes; events, checkpoints, stopping and the result are those of every other stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from training.chatformat import ChatFormat
from training.contract import DPOSettings, RankingRow
from training.preference import comparisons_of
from training.rundir import Run
from training.trl_stage import Example, learn_from_rankings


class PairTrainer(DPOTrainer):
    """Takes pairs that are tokens already: ours are encoded so that nobody's text is read as special tokens."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def main(run: Run[DPOSettings]) -> None:
    learn_from_rankings(
        run, pairs_of, PairTrainer, DPOConfig, count=lambda pairs: {"pairs": len(pairs)}, beta=run.config.beta
    )


def pairs_of(rows: Sequence[RankingRow], chat: ChatFormat, most: int) -> list[Example]:
    """Every comparison that a person decided, as tokens; ties and rankings without weight say nothing to DPO."""
    pairs = []
    for row in rows:
        if row.weight == 0:
            continue
        replies = [chat.reply(reply, row.messages) for reply in row.replies]
        prompt = chat.prompt(row.messages)
        for better, worse, _ in comparisons_of(row.groups, "drop"):
            chosen, rejected = replies[better][:most], replies[worse][:most]
            room = most - max(len(chosen), len(rejected))
            pairs.append({"prompt_ids": prompt[-room:] if room else [], "chosen_ids": chosen, "rejected_ids": rejected})
    return [pair for pair in pairs if pair["prompt_ids"]]
