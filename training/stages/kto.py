"""The KTO stage: trains a policy on replies that people found good or bad (Ethayarajh et al. 2024, arXiv:2402.01306).

TRL's KTOTrainer does the training; events, checkpoints, stopping and the result are the same as in every other stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from datasets import Dataset
from torch.utils.data import RandomSampler, Sampler
from trl import KTOConfig, KTOTrainer

from training.contract import InputError, JudgmentRow, KTOSettings, RankingRow, Turn
from training.data.chat_format import ChatFormat
from training.data.fitting import RowCounts, fit_prompt
from training.rl.trl.from_labels import TokenExample, TokenExamples, train_on_labels
from training.run.run import Run


class JudgedTrainer(KTOTrainer):
    """Takes replies that are token ids already: we encode them so that text is never read as special tokens."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return Dataset.from_list(with_mismatched_replies(dataset.to_list()))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        """In an order of each epoch's own. TRL keeps that of the rows, because its mismatched pairs are of one batch;
        ours go with their examples."""
        return RandomSampler(train_dataset or self.train_dataset)


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
    train_on_labels(
        run, verdicts_of(rankings, judgments), verdicts_of(heldout, heldout_judgments), encode_verdicts,
        JudgedTrainer, KTOConfig,
        counts={
            "rankings": len(rankings), "judgments": len(judgments),
            "heldout": len(heldout), "heldout_judgments": len(heldout_judgments),
        },
        min_micro=2,  # KTO compares each reply with the others of its forward pass
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
    )  # fmt: skip


class Verdict(NamedTuple):
    """Whether one reply is good or bad."""

    row_id: str
    messages: list[Turn]
    reply: str
    good: bool


def verdicts_of(rankings: Sequence[RankingRow], judgments: Sequence[JudgmentRow]) -> list[Verdict]:
    """Replies above the middle of their ranking are good, those below it bad; single replies are what people judged
    them to be. Replies in the middle of a ranking, rankings that tie everything, and rows without weight give no
    verdict."""
    verdicts = [
        Verdict(row.id, row.messages, row.replies[i], good=2 * rank < len(row.groups) - 1)
        for row in rankings
        if row.weight
        for rank, group in enumerate(row.groups)
        if 2 * rank != len(row.groups) - 1
        for i in group
    ]
    return verdicts + [Verdict(row.id, row.messages, row.reply, row.good) for row in judgments if row.weight]


def encode_verdicts(verdicts: Sequence[Verdict], chat: ChatFormat, limit: int) -> TokenExamples:
    """The replies as tokens. A reply that does not fit into `limit` tokens with system turn and question is left
    out."""
    counts = RowCounts("replies", limit)
    examples: list[TokenExample] = []
    for row_id, messages, reply, good in verdicts:
        with counts.leave_out_if_refused(row_id):
            reply_ids = chat.reply(reply, messages)
            fitted = fit_prompt(chat, messages, limit - len(reply_ids))
            if fitted is None:
                counts.add("left_out/too_long", row_id)
                continue
            counts.add_fitted(fitted, row_id, chat)
            examples.append({"prompt_ids": fitted.ids, "completion_ids": reply_ids, "label": good})
    good_count = sum(example["label"] for example in examples)
    return TokenExamples(examples, counts, len(verdicts), {"good": good_count, "bad": len(examples) - good_count})


def with_mismatched_replies(examples: Sequence[TokenExample]) -> list[TokenExample]:
    """Each example with the reply to another prompt: TRL estimates the KL divergence from such mismatched pairs
    (Ethayarajh et al. 2024, equation 8).

    It is the reply of the nearest example before it, in a circle, with another prompt: a reply to the same prompt
    would measure what is being pushed up and down. It is cut so that no pair is longer than the longest example. If
    there is one prompt only, the pair is with another reply to it.
    """
    prompts = [tuple(example["prompt_ids"]) for example in examples]
    longest = max(len(example["prompt_ids"]) + len(example["completion_ids"]) for example in examples)
    mismatched = []
    for i, example in enumerate(examples):
        before = (i - back for back in range(1, len(examples)))
        partner = next((j for j in before if prompts[j] != prompts[i]), i - 1)
        room = longest - len(prompts[i])
        mismatched.append(example | {"KL_completion_ids": examples[partner]["completion_ids"][:room]})
    return mismatched
