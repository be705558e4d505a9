"""The KTO stage: learns a policy from replies that people found good or bad (Ethayarajh et al. 2024, arXiv:2402.01306).

TRL's KTOTrainer computes; events, checkpoints, stopping and the result are those of every other stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from training.contract import InputError, JudgmentRow, KTOSettings, RankingRow, Turn
from training.data.chat_format import ChatFormat
from training.data.fitting import RowCounts, fit_prompt
from training.run.run import Run
from training.stages.trl import EncodedExamples, Example, learn_from_examples


class JudgedTrainer(KTOTrainer):
    """Takes replies that are tokens already: ours are encoded so that nobody's text is read as special tokens."""

    def _prepare_dataset(self, dataset: Dataset, _: Any, args: KTOConfig, *__: Any) -> Dataset:
        return Dataset.from_list(rotated(dataset.to_list(), args.per_device_train_batch_size))


def main(run: Run[KTOSettings]) -> None:
    config = run.config
    rankings, judgments = run.rows("rankings", RankingRow), run.rows("judgments", JudgmentRow)
    if len(rankings) + len(judgments) < max(1, config.min_rows):
        raise InputError(
            f"kto: {len(rankings)} rankings and {len(judgments)} judgments in the snapshots, at least "
            f"{max(1, config.min_rows)} are needed",
            code="too_few_rows",
        )
    heldout, heldout_judgments = run.rows("heldout", RankingRow), run.rows("heldout_judgments", JudgmentRow)

    def encode(chat: ChatFormat, limit: int) -> tuple[EncodedExamples, EncodedExamples]:
        return (
            encoded_replies(verdicts_of(rankings, judgments), chat, limit),
            encoded_replies(verdicts_of(heldout, heldout_judgments), chat, limit),
        )

    learn_from_examples(
        run, encode, JudgedTrainer, KTOConfig,
        counts={
            "rankings": len(rankings), "judgments": len(judgments),
            "heldout": len(heldout), "heldout_judgments": len(heldout_judgments),
        },
        least=2,  # what a reply gains is measured against others of its pass
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
    )  # fmt: skip


class Verdict(NamedTuple):
    """One reply that is good or bad."""

    row_id: str
    messages: list[Turn]
    reply: str
    good: bool


def verdicts_of(rankings: Sequence[RankingRow], judgments: Sequence[JudgmentRow]) -> list[Verdict]:
    """The replies above the middle of their ranking as good and those below it as bad, and what people called good or
    bad by itself. Replies in the middle of a ranking, rankings that tie everything, and rows without weight say
    neither."""
    found = [
        Verdict(row.id, row.messages, row.replies[i], good=2 * place < len(row.groups) - 1)
        for row in rankings
        if row.weight
        for place, group in enumerate(row.groups)
        if 2 * place != len(row.groups) - 1
        for i in group
    ]
    return found + [Verdict(row.id, row.messages, row.reply, row.good) for row in judgments if row.weight]


def encoded_replies(verdicts: Sequence[Verdict], chat: ChatFormat, limit: int) -> EncodedExamples:
    """The replies as tokens. One that does not fit into `limit` tokens with system turn and question is left out."""
    counts = RowCounts("replies", limit)
    examples: list[Example] = []
    for row_id, messages, reply, good in verdicts:
        with counts.leave_out_if_refused(row_id):
            spoken = chat.reply(reply, messages)
            fitted = fit_prompt(chat, messages, limit - len(spoken))
            if fitted is None:
                counts.add("left_out/too_long", row_id)
                continue
            counts.add_fitted(fitted, row_id, chat)
            examples.append({"prompt_ids": fitted.ids, "completion_ids": spoken, "label": good})
    good_count = sum(example["label"] for example in examples)
    return EncodedExamples(examples, counts, len(verdicts), {"good": good_count, "bad": len(examples) - good_count})


def rotated(judged: Sequence[Example], size: int) -> list[Example]:
    """Each reply with that of another prompt of its pass, from which TRL estimates the KL divergence."""
    found = []
    for first in range(0, len(judged), size):
        part = judged[first : first + size]
        found += [one | {"KL_completion_ids": part[i - 1]["completion_ids"]} for i, one in enumerate(part)]
    return found
