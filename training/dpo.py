"""The DPO stage: learns a policy from rankings without a reward model (Rafailov et al. 2023, arXiv:2305.18290).

TRL's DPOTrainer computes; events, checkpoints, stopping and the result are those of every other stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from training.chatformat import ChatFormat
from training.contract import DPOSettings, InputError, RankingRow
from training.models import about
from training.preference import comparisons_of
from training.rundir import Run
from training.trl_stage import arguments, load_policy, optimizers, save, steps_of, train

Pair = dict[str, list[int]]


class PairTrainer(DPOTrainer):
    """Takes pairs that are tokens already: ours are encoded so that nobody's text is read as special tokens."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def main(run: Run[DPOSettings]) -> None:
    config = run.config
    rows = run.rows("rankings", RankingRow, config.min_rows)
    heldout_rows = run.rows("heldout", RankingRow)
    compute, chat, model, reference, most = load_policy(run)
    pairs, heldout = pairs_of(rows, chat, most), pairs_of(heldout_rows, chat, most)
    if not pairs:
        raise InputError("dpo: no ranking puts one reply above another, so there is nothing to learn", code="no_data")
    steps = steps_of([length_of(pair) for pair in pairs], config)
    trainer = PairTrainer(
        model=model,
        ref_model=reference,
        args=DPOConfig(**arguments(run, compute, steps, heldout=bool(heldout)), beta=config.beta, max_length=None),
        train_dataset=Dataset.from_list(pairs),
        eval_dataset=Dataset.from_list(heldout) if heldout else None,
        processing_class=chat.tokenizer,
        optimizers=optimizers(model, config, compute, steps.total),
    )
    figures = train(run, trainer, steps.total, heldout=bool(heldout))
    save(run, model, chat)
    run.finish(
        figures,
        counts={
            "rankings": len(rows),
            "pairs": len(pairs),
            "heldout": len(heldout_rows),
            "heldout_pairs": len(heldout),
        },
        model=about(model),
    )


def pairs_of(rows: Sequence[RankingRow], chat: ChatFormat, most: int) -> list[Pair]:
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


def length_of(pair: Pair) -> int:
    """Tokens of both sequences, padded to the longer one."""
    return 2 * (len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"])))
