"""The KTO stage: learns a policy from replies that people found good or bad (Ethayarajh et al. 2024, arXiv:2402.01306).

TRL's KTOTrainer computes; events, checkpoints, stopping and the result are those of every other stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from training.chatformat import ChatFormat
from training.contract import InputError, KTOSettings, RankingRow
from training.models import about
from training.rundir import Run
from training.trl_stage import arguments, load_policy, optimizers, save, steps_of, train

Judged = dict[str, Any]


class JudgedTrainer(KTOTrainer):
    """Takes replies that are tokens already: ours are encoded so that nobody's text is read as special tokens."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def main(run: Run[KTOSettings]) -> None:
    config = run.config
    rows = run.rows("rankings", RankingRow, config.min_rows)
    heldout_rows = run.rows("heldout", RankingRow)
    compute, chat, model, reference, most = load_policy(run)
    judged, heldout = judged_replies(rows, chat, most), judged_replies(heldout_rows, chat, most)
    if len({one["label"] for one in judged}) < 2:
        raise InputError("kto: no ranking puts one reply above another, so there is nothing to learn", code="no_data")
    steps = steps_of([length_of(one) for one in judged], config)
    steps = steps._replace(micro=max(2, steps.micro))  # what a reply gains is measured against others of its pass
    trainer = JudgedTrainer(
        model=model,
        ref_model=reference,
        args=KTOConfig(
            **arguments(run, compute, steps, heldout=bool(heldout)),
            beta=config.beta,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
            max_length=None,
        ),
        train_dataset=Dataset.from_list(rotated(judged, steps.micro)),
        eval_dataset=Dataset.from_list(rotated(heldout, steps.micro)) if heldout else None,
        processing_class=chat.tokenizer,
        optimizers=optimizers(model, config, compute, steps.total),
    )
    figures = train(run, trainer, steps.total, heldout=bool(heldout))
    save(run, model, chat)
    run.finish(
        figures,
        counts={
            "rankings": len(rows),
            "good": sum(one["label"] for one in judged),
            "bad": sum(not one["label"] for one in judged),
            "heldout": len(heldout_rows),
        },
        model=about(model),
    )


def judged_replies(rows: Sequence[RankingRow], chat: ChatFormat, most: int) -> list[Judged]:
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


def rotated(judged: Sequence[Judged], size: int) -> list[Judged]:
    """Each reply with that of another prompt of its pass, from which TRL estimates the KL divergence."""
    found = []
    for first in range(0, len(judged), size):
        part = judged[first : first + size]
        found += [one | {"KL_completion_ids": part[i - 1]["completion_ids"]} for i, one in enumerate(part)]
    return found


def length_of(one: Judged) -> int:
    """Tokens of the reply's sequence and of the mismatched one."""
    return 2 * (len(one["prompt_ids"]) + len(one["completion_ids"]))
