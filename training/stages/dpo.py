"""The DPO stage: trains a policy on rankings without a reward model (Rafailov et al. 2023, arXiv:2305.18290).

TRL's DPOTrainer does the training, or for SimPO and ORPO, which have no reference model, its CPO and ORPO trainers;
events, checkpoints, stopping and the result are the same as in every other stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from training.contract import DPOSettings, RankingRow
from training.data.chat_format import ChatFormat
from training.data.fitting import RowCounts, fit_prompt
from training.preferences.losses import comparisons_of
from training.rl.trl.from_labels import TokenExample, TokenExamples, train_on_labels
from training.run.run import Run


class PairTrainer(DPOTrainer):
    """Takes pairs that are token ids already: we encode them so that text is never read as special tokens."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def main(run: Run[DPOSettings]) -> None:
    config = run.config
    rows, heldout = run.rows("rankings", RankingRow, config.min_rows), run.rows("heldout", RankingRow)
    counts = {"rankings": len(rows), "heldout": len(heldout)}
    if config.has_reference:
        train_on_labels(
            run, rows, heldout, encode_pairs, PairTrainer, DPOConfig, counts=counts,
            beta=config.beta, loss_type=[config.loss], label_smoothing=config.label_smoothing,
        )  # fmt: skip
        return
    from training.rl.trl.reference_free import reference_free  # noqa: PLC0415 - TRL's experimental trainers

    free = reference_free(config)
    train_on_labels(
        run, rows, heldout, encode_pairs, free.trainer, free.arguments, counts=counts, reference=False, **free.settings
    )


def encode_pairs(rows: Sequence[RankingRow], chat: ChatFormat, limit: int) -> TokenExamples:
    """Every comparison that a person decided, as tokens; DPO has no use for ties and for rankings without weight. Pairs
    of equal replies are left out, and so are those that do not fit into `limit` tokens with system turn and
    question."""
    counts = RowCounts("pairs", limit)
    pairs: list[TokenExample] = []
    total = 0
    for row in rows:
        comparisons = comparisons_of(row.groups, "drop") if row.weight else []
        total += len(comparisons)
        if not comparisons:
            continue
        with counts.leave_out_if_refused(row.id, times=len(comparisons)):
            prompt = chat.prompt(row.messages)
            replies = [chat.reply(reply, row.messages) for reply in row.replies]
            sides = [(replies[better], replies[worse]) for better, worse, _ in comparisons]
            prompts = [fit_prompt(chat, row.messages, limit - max(map(len, pair)), prompt) for pair in sides]
            for (chosen, rejected), fitted in zip(sides, prompts, strict=True):
                if chosen == rejected:
                    counts.add("left_out/equal", row.id)
                elif fitted is None:
                    counts.add("left_out/too_long", row.id)
                else:
                    counts.add_fitted(fitted, row.id, chat)
                    pairs.append({"prompt_ids": fitted.ids, "chosen_ids": chosen, "rejected_ids": rejected})
    return TokenExamples(pairs, counts, total, {"pairs": len(pairs)})
