"""Learns from demonstrations: the loss is on what the assistant says, its stop token included, and on nothing else."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

import torch

from training.contract import MODEL, DemonstrationRow, InputError, SFTSettings
from training.data.batching import Rows, Sizes
from training.data.chat_format import ChatFormat, Encoded, Refused
from training.data.fitting import Fitted, FittedExchange, RowCounts, exchanges_of, fit_exchange
from training.data.packing import TextBatch, text_batch
from training.engine.preview import greedy_reply
from training.models.checks import check_vocabulary
from training.models.forward import Forward
from training.models.loading import (
    Compute,
    about,
    context_of,
    load_causal,
    load_tokenizer,
    prepare,
    save_model,
)
from training.optim.loop import Examples, Learner, Sums, mean_figures, train
from training.run.run import Run

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
        kept, learned, by_turn, counts = encode(chat, rows, most)
        measured = encode(chat, heldout, most).examples
    changes = counts.sentences(len(rows))
    if len(kept) < settings.min_rows:
        raise InputError(
            f"sft: {len(kept)} of {len(rows)} demonstrations can be used, at least {settings.min_rows} are needed; "
            + "; ".join(changes),
            code="too_few_rows",
        )
    for sentence in changes:
        run.warn(sentence)
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
    run.finish(
        figures,
        counts=count(rows, heldout, kept, learned) | {"turn_by_turn": by_turn} | counts.named(),
        model=about(model),
    )


Weighted = tuple[Encoded, float]


class Lessons(NamedTuple):
    rows: list[DemonstrationRow]  # that can be learned from
    examples: list[Weighted]  # their tokens with their weights
    by_turn: int  # rows of several examples, one for each turn of the assistant
    counts: RowCounts  # of those that cannot, and of what the others lose


def encode(chat: ChatFormat, rows: Sequence[DemonstrationRow], limit: int) -> Lessons:
    """Every example has at most `limit` tokens. A token weighs as much as its row whether the row is one example or
    several."""
    counts = RowCounts("demonstrations", limit)
    kept: list[DemonstrationRow] = []
    encoded: list[Weighted] = []
    by_turn = 0
    for row in rows:
        lessons = lessons_of(chat, row, limit, counts)
        if lessons:
            kept.append(row)
            by_turn += len(lessons) > 1
            encoded += [(lesson, row.weight) for lesson in lessons]
    return Lessons(kept, encoded, by_turn, counts)


def lessons_of(chat: ChatFormat, row: DemonstrationRow, limit: int, counts: RowCounts) -> list[Encoded]:
    """What is learned from the row, nothing if it is left out; what happens to it is counted."""
    if row.weight == 0:
        counts.add("left_out/no_weight", row.id)
        return []
    try:
        lessons = chat.lessons(row.messages, row.masked_turns)
        if not row.messages[-1].content.strip() or not any(lessons[-1][1].mask):
            counts.add("left_out/empty", row.id)
            return []
        fit = fit_conversation if len(lessons) == 1 else fit_lesson
        fitted = [fit(chat, row, end, lesson, limit) for end, lesson in lessons]
    except Refused as error:
        counts.add("left_out/refused", row.id, error.reason)
        return []
    if fitted[-1] is None:
        counts.add("left_out/too_long", row.id)
        return []
    counts.add_fitted(fitted[-1].prompt, row.id, chat)
    return [lesson.encoded for lesson in fitted if lesson is not None]


def fit_conversation(
    chat: ChatFormat, row: DemonstrationRow, end: int, lesson: Encoded, limit: int
) -> FittedExchange | None:
    """The row as one lesson of at most `limit` tokens: without its oldest exchanges, or its last reply alone. None if
    that is too long for its question."""
    messages = row.messages[:end]
    system, exchanges = exchanges_of(messages)

    def without(dropped: int) -> Encoded:
        rest = [*system, *chain.from_iterable(exchanges[dropped:])]
        gone = len(messages) - len(rest)
        return chat.conversation(rest, [i - gone for i in row.masked_turns])

    if len(lesson.ids) > limit:
        dropped = bisect_left(range(len(exchanges)), True, lo=1, key=lambda n: len(without(n).ids) <= limit)
        if dropped < len(exchanges):
            gone = sum(map(len, exchanges[:dropped]))
            return FittedExchange(without(dropped), Fitted(messages, [], dropped=gone))
    return fit_lesson(chat, row, end, lesson, limit)


def fit_lesson(chat: ChatFormat, row: DemonstrationRow, end: int, lesson: Encoded, limit: int) -> FittedExchange | None:
    """The lesson whose last turn, after `end` turns of the row, is all that it teaches, in at most `limit` tokens; None
    if the reply is too long for its question."""
    messages = row.messages[:end]
    if len(lesson.ids) <= limit:
        return FittedExchange(lesson, Fitted(messages, []))
    fitted = fit_exchange(chat, messages[:-1], messages[-1].content, limit)
    return None if fitted.cut_reply else fitted


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
