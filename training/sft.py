"""Learns from demonstrations: the loss is on what the assistant says, its stop token included, and on nothing else."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from training.batching import Rows, Sizes
from training.chatformat import ChatFormat, Encoded
from training.contract import MODEL, DemonstrationRow, InputError, SFTSettings
from training.forward import Forward
from training.loop import Examples, Learner, Sums, mean_figures, train
from training.model_checks import check_vocabulary
from training.models import (
    Compute,
    about,
    context_of,
    load_causal,
    load_tokenizer,
    prepare,
    save_model,
)
from training.packing import TextBatch, text_batch
from training.preview import greedy_reply
from training.rundir import Run

HELDOUT_BATCHES: Final = 8  # how much of the held-out rows is measured while training goes on; at its end, all of them
SAMPLES: Final = 2


def main(run: Run[SFTSettings]) -> None:
    settings = run.config
    rows = run.rows("demonstrations", DemonstrationRow, at_least=settings.min_rows)
    heldout = run.rows("heldout", DemonstrationRow)
    compute = prepare(run)
    tokenizer = load_tokenizer(settings.base, run)
    chat = ChatFormat(tokenizer, settings.base)
    model = load_causal(settings.base, compute, lora=settings.lora, trainable=True)
    check_vocabulary(chat, model, settings.base)
    forward = Forward(model)
    most = min(settings.max_tokens, context_of(model))

    with run.timed("tokenizing"):
        kept, learned, by_turn = encode(chat, rows, most)
        measured = encode(chat, heldout, most).examples
    why = left_out(chat, rows, most) if len(kept) < len(rows) else ""
    if len(kept) < settings.min_rows:
        raise InputError(
            f"sft: {len(kept)} of {len(rows)} demonstrations can be used, at least {settings.min_rows} are needed; "
            f"{why}",
            code="too_few_rows",
        )
    if why:
        run.warn(f"{len(rows) - len(kept)} demonstrations are left out; {why}")
    if by_turn:
        run.warn(
            f"the model's chat template rewrites earlier turns: {by_turn} demonstrations are learned turn by turn, "
            "each turn after what the template makes of those before it"
        )
    shown = (heldout or rows)[:SAMPLES]

    def loss(batch: TextBatch) -> Sums:
        return weighted_loss(forward, batch)

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
    if run.main:
        with run.writing(MODEL) as folder:
            save_model(model, tokenizer, folder, chat.stop_ids)
    run.finish(figures, counts=count(rows, heldout, kept, learned) | {"turn_by_turn": by_turn}, model=about(model))


Weighted = tuple[Encoded, float]


class Lessons(NamedTuple):
    rows: list[DemonstrationRow]  # that can be learned from
    examples: list[Weighted]  # their tokens with their weights
    by_turn: int  # rows of several examples, one for each turn of the assistant


def encode(chat: ChatFormat, rows: list[DemonstrationRow], most: int) -> Lessons:
    """The examples are cut from the left to `most` tokens. A token weighs as much as its row whether the row is one
    example or several."""
    kept: list[DemonstrationRow] = []
    encoded: list[Weighted] = []
    by_turn = 0
    for row in rows:
        lessons = chat.lessons(row.messages)
        if not unusable(row, lessons[-1], most):
            kept.append(row)
            by_turn += len(lessons) > 1
            encoded += [(chat.last(one, most), row.weight) for one in lessons if last_reply(one.mask) < most]
    return Lessons(kept, encoded, by_turn)


def unusable(row: DemonstrationRow, lesson: Encoded, most: int) -> str:
    """Why nothing can be learned from the row, of which this is the last or only lesson; empty where something can."""
    if row.weight == 0:
        return "its weight is 0"
    if not row.messages[-1].content.strip() or not any(lesson.mask):
        return "its last reply is empty"
    if last_reply(lesson.mask) >= most:
        return f"its last reply alone is longer than {most} tokens"
    return ""


def left_out(chat: ChatFormat, rows: list[DemonstrationRow], most: int) -> str:
    """The first row that cannot be used, by its id, and why; empty where all can."""
    for row in rows:
        if why := unusable(row, chat.lessons(row.messages)[-1], most):
            return f"the first is {row.id}: {why}"
    return ""


def last_reply(mask: list[bool]) -> int:
    """From where the assistant speaks last, how many tokens there are to the end, what a template puts behind the
    reply included."""
    behind = mask[::-1].index(True)
    return behind + next((i for i, spoken in enumerate(reversed(mask[: len(mask) - behind])) if not spoken), len(mask))


def examples(rows: list[Weighted], chat: ChatFormat, compute: Compute) -> Examples[TextBatch]:
    sizes = Sizes.of([len(encoded.ids) for encoded, _ in rows], [encoded.targets * weight for encoded, weight in rows])

    def batch(chosen: Rows) -> TextBatch:
        picked = [rows[int(i)] for i in chosen]
        made = text_batch(
            [encoded.ids for encoded, _ in picked], [encoded.mask for encoded, _ in picked], chat.pad_id, compute.device
        )
        counts = torch.tensor([encoded.targets for encoded, _ in picked])
        weights = torch.tensor([weight for _, weight in picked]).repeat_interleave(counts)
        return made._replace(weights=weights.to(compute.device))

    return Examples(sizes, batch)


def weighted_loss(forward: Forward, batch: TextBatch) -> Sums:
    """Sum over target tokens of loss (nats) times the row's weight, and the sum of those weights."""
    losses = forward.losses(batch) * batch.weights
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
