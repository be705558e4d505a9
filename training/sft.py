"""Learns from demonstrations: the loss is on what the assistant says, its stop token included, and on nothing else."""

from __future__ import annotations

from typing import Final

import torch

from training.batching import Batch, Rows, Sizes, pad
from training.chatformat import ChatFormat, Encoded
from training.contract import MODEL, DemonstrationRow, InputError, SFTSettings
from training.loop import Examples, Learner, Sums, mean_figures, train
from training.models import (
    CausalModel,
    Compute,
    about,
    context_of,
    load_causal,
    load_tokenizer,
    prepare,
    save_model,
    target_losses,
)
from training.preview import greedy_reply
from training.rundir import Run

HELDOUT_BATCHES: Final = 8  # how much of the held-out rows is measured while training goes on; at its end, all of them
SAMPLES: Final = 2


def main(run: Run[SFTSettings]) -> None:
    settings = run.config
    rows = run.rows("demonstrations", DemonstrationRow, at_least=settings.min_rows)
    heldout = run.rows("heldout", DemonstrationRow)
    compute = prepare(run)
    tokenizer = load_tokenizer(settings.base)
    chat = ChatFormat(tokenizer, settings.base)
    model = load_causal(settings.base, compute, lora=settings.lora, trainable=True)
    most = min(settings.max_tokens, context_of(model))

    with run.timed("tokenizing"):
        kept, learned = encode(chat, rows, most)
        _, measured = encode(chat, heldout, most)
    left_out = len(rows) - len(kept)
    if left_out:
        run.warn(
            f"{left_out} demonstrations are left out: their last reply alone is longer than {most} tokens, or empty"
        )
    if len(kept) < settings.min_rows:
        raise InputError(
            f"sft: {len(kept)} of {len(rows)} demonstrations can be used, at least {settings.min_rows} are needed",
            code="too_few_rows",
        )
    shown = (heldout or rows)[:SAMPLES]

    def loss(batch: Batch) -> Sums:
        return weighted_loss(model, batch)

    def evaluate(step: int, final: bool) -> dict[str, float]:
        model.eval()
        figures = {}
        if measured:
            budget = 0 if final else HELDOUT_BATCHES * settings.batch_tokens
            means = mean_figures(examples(measured, chat, compute), loss, compute, settings.micro_tokens, budget)
            figures = {f"heldout_{name}": value for name, value in means.items()}
        for row in shown:
            prompt = row.messages[:-1]
            run.sample(step, prompt[-1].content, greedy_reply(model, chat, prompt, compute))
        model.train()
        return figures

    model.train()
    learner = Learner({"model": model}, settings, compute)
    with run.timed("training"):
        figures = train(
            run,
            learner,
            examples(learned, chat, compute),
            loss,
            epochs=settings.epochs,
            max_steps=settings.max_steps,
            evaluate=evaluate,
        )
    model.eval()
    with run.writing(MODEL) as folder:
        save_model(model, tokenizer, folder, chat.stop_ids)
    run.finish(figures, counts=count(rows, heldout, kept, learned), model=about(model))


Weighted = tuple[Encoded, float]


def encode(chat: ChatFormat, rows: list[DemonstrationRow], most: int) -> tuple[list[DemonstrationRow], list[Weighted]]:
    """The rows that can be learned from, and their tokens with their weights, cut from the left to `most` tokens.

    A row is left out where the cut would take part of its last reply, and where its weight is zero.
    """
    kept, encoded = [], []
    for row in rows:
        conversation = chat.conversation(row.messages)
        reply = trailing(conversation.mask)
        if 1 < reply < most and row.weight > 0:
            kept.append(row)
            encoded.append((conversation.last(most), row.weight))
    return kept, encoded


def trailing(mask: list[bool]) -> int:
    """How many of the last entries are true."""
    return next((i for i, spoken in enumerate(reversed(mask)) if not spoken), len(mask))


def examples(rows: list[Weighted], chat: ChatFormat, compute: Compute) -> Examples[Batch]:
    lengths = [len(encoded.ids) for encoded, _ in rows]
    sizes = Sizes.of(lengths, [encoded.targets * weight for encoded, weight in rows])

    def batch(chosen: Rows) -> Batch:
        picked = [rows[int(i)] for i in chosen]
        ids = pad([encoded.ids for encoded, _ in picked], chat.pad_id)
        targets = pad([encoded.mask for encoded, _ in picked], 0).bool()
        counts = torch.tensor([encoded.targets for encoded, _ in picked])
        weights = torch.tensor([weight for _, weight in picked]).repeat_interleave(counts)
        return Batch(*(tensor.to(compute.device) for tensor in (ids, targets, weights)))

    return Examples(sizes, batch)


def weighted_loss(model: CausalModel, batch: Batch) -> Sums:
    """Sum over target tokens of loss (nats) times the row's weight, and the sum of those weights."""
    losses = target_losses(model, batch.ids, batch.targets) * batch.weights
    return {"loss": (losses.sum(), float(torch.as_tensor(batch.weights).sum()))}


def count(
    rows: list[DemonstrationRow], heldout: list[DemonstrationRow], kept: list[DemonstrationRow], learned: list[Weighted]
) -> dict[str, int]:
    return {
        "demonstrations": len(rows),
        "used": len(kept),
        "left_out": len(rows) - len(kept),
        "heldout": len(heldout),
        "tokens": sum(len(encoded.ids) for encoded, _ in learned),
        "target_tokens": sum(encoded.targets for encoded, _ in learned),
    }
