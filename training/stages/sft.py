"""Learns from demonstrations: the loss is on what the assistant says, its stop token included, and on nothing else."""

from __future__ import annotations

from typing import Final

from training.contract import MODEL, DemonstrationRow, InputError, SFTSettings
from training.data.batching import Examples
from training.data.chat_format import ChatFormat
from training.data.demonstrations import WeightedExample, demonstration_examples, encode_demonstrations
from training.data.packing import TextBatch
from training.engine.greedy_preview import greedy_reply
from training.models.checks import check_vocabulary
from training.models.compute import prepare
from training.models.forward import Forward
from training.models.loading import context_of, load_causal, load_tokenizer, model_info, save_model
from training.models.trunk import tell_padding
from training.optim.learner import Learner
from training.optim.loop import train
from training.optim.losses import weighted_loss
from training.optim.meters import Sums, mean_figures
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
    model = load_causal(
        settings.base, compute, lora=settings.lora, trainable=True, checkpointing=settings.activation_checkpointing
    )
    check_vocabulary(chat, model, settings.base)
    forward = Forward(model)
    tell_padding(run, forward.trunk)
    max_tokens = min(settings.max_tokens, context_of(model))

    with run.timed("tokenizing"):
        usable, learned, by_turn, counts = encode_demonstrations(chat, rows, max_tokens)
        measured = encode_demonstrations(chat, heldout, max_tokens).examples
    changes = counts.sentences(len(rows))
    if len(usable) < settings.min_rows:
        raise InputError(
            f"sft: {len(usable)} of {len(rows)} demonstrations can be used, at least {settings.min_rows} are needed; "
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
    examples_shown = (heldout or rows)[:SAMPLES]

    def examples_of(lessons: list[WeightedExample]) -> Examples[TextBatch]:
        return demonstration_examples(lessons, chat, compute.device).for_passes(packed=forward.packs)

    def loss(batch: TextBatch) -> Sums:
        return weighted_loss(forward, batch)

    def evaluate(step: int, final: bool) -> dict[str, float]:
        model.eval()
        figures = {}
        if measured:
            budget = 0 if final else HELDOUT_BATCHES * settings.batch_tokens
            on_progress = run.measuring("held-out rows")
            means = mean_figures(examples_of(measured), loss, compute, settings.micro_tokens, budget, on_progress)
            figures = {f"heldout_{name}": value for name, value in means.items()}
        for row in examples_shown:
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
            examples_of(learned),
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
        counts=count(rows, heldout, usable, learned) | {"turn_by_turn": by_turn} | counts.named(),
        model=model_info(model),
    )


def count(
    rows: list[DemonstrationRow],
    heldout: list[DemonstrationRow],
    usable: list[DemonstrationRow],
    learned: list[WeightedExample],
) -> dict[str, int]:
    return {
        "demonstrations": len(rows),
        "used": len(usable),
        "left_out": len(rows) - len(usable),
        "heldout": len(heldout),
        "tokens": sum(len(encoded.ids) for encoded, _ in learned),
        "target_tokens": sum(encoded.targets for encoded, _ in learned),
    }
