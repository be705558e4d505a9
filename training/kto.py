"""The KTO stage: learns a policy from replies that people found good or bad (Ethayarajh et al. 2024, arXiv:2402.01306).

TRL's KTOTrainer computes; events, checkpoints, stopping and the result are those of every other stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from training.chatformat import ChatFormat
from training.contract import KTOSettings, RankingRow
from training.rundir import Run
from training.trl_stage import Example, learn_from_rankings


class JudgedTrainer(KTOTrainer):
    """Takes replies that are tokens already: ours are encoded so that nobody's text is read as special tokens."""

    def _prepare_dataset(self, dataset: Dataset, _: Any, args: KTOConfig, *__: Any) -> Dataset:
        return Dataset.from_list(rotated(dataset.to_list(), args.per_device_train_batch_size))


def main(run: Run[KTOSettings]) -> None:
    config = run.config
    learn_from_rankings(
        run, judged_replies, JudgedTrainer, KTOConfig,
        count=good_and_bad,
        least=2,  # what a reply gains is measured against others of its pass
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
    )  # fmt: skip


def good_and_bad(judged: Sequence[Example]) -> dict[str, int]:
    return {"good": sum(one["label"] for one in judged), "bad": sum(not one["label"] for one in judged)}


def judged_replies(rows: Sequence[RankingRow], chat: ChatFormat, most: int) -> list[Example]:
    """The replies above the middle of their ranking as good and those below it as bad, as tokens; those in its middle,
    and rankings that tie everything or have no weight, say neither."""
    found = []
    for row in rows:
        if row.weight == 0 or len(row.groups) < 2:
            continue
        prompt = chat.prompt(row.messages)
        for place, group in enumerate(row.groups):
            standing = 2 * place - (len(row.groups) - 1)
            for i in group if standing else ():
                reply = chat.reply(row.replies[i], row.messages)[:most]
                kept = prompt[-(most - len(reply)) :] if len(reply) < most else []
                if kept:
                    found.append({"prompt_ids": kept, "completion_ids": reply, "label": standing < 0})
    return found


def rotated(judged: Sequence[Example], size: int) -> list[Example]:
    """Each reply with that of another prompt of its pass, from which TRL estimates the KL divergence."""
    found = []
    for first in range(0, len(judged), size):
        part = judged[first : first + size]
        found += [one | {"KL_completion_ids": part[i - 1]["completion_ids"]} for i, one in enumerate(part)]
    return found
