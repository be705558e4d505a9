"""Learns to continue text: documents packed into rows of the full context, next-token loss on every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from training.contract import MODEL, InputError, PretrainSettings, TextRow
from training.data.chat_format import ChatFormat
from training.data.text_stream import text_examples, tokenize_texts
from training.engine.greedy_preview import greedy_continuation
from training.models.checks import check_vocabulary
from training.models.compute import Compute, prepare
from training.models.forward import Forward
from training.models.loading import (
    CausalModel,
    context_of,
    load_causal,
    load_tokenizer,
    model_info,
    new_causal,
    save_model,
)
from training.models.trunk import tell_padding
from training.optim.learner import Learner
from training.optim.loop import train
from training.optim.losses import bits_per_byte, next_token_loss
from training.run.run import Run

HELDOUT_BYTES: Final = 24  # bytes for each token of a batch, measured while training goes on; at its end, all of it


def main(run: Run[PretrainSettings]) -> None:
    settings = run.config
    corpus = [row.text for row in run.rows("corpus", TextRow)]
    heldout = [row.text for row in run.rows("heldout", TextRow)]
    compute = prepare(run)
    source = settings.tokenizer or settings.base
    tokenizer = load_tokenizer(source, run)
    chat = ChatFormat(tokenizer, source)
    model = starting_model(settings, chat, compute)
    forward = Forward(model)
    tell_padding(run, forward.trunk)

    with run.timed("tokenizing"):
        stream = tokenize_texts(chat, corpus, settings.context, run)
    if len(stream.tokens) < 2:
        raise InputError("pretrain: the corpus has no text to learn from", code="too_few_rows")
    run.metric(0, {"tokens": len(stream.tokens), "parameters": model_info(model)["parameters"]})
    sample = first_bytes(heldout, HELDOUT_BYTES * settings.batch_tokens)
    opening = chat.text(" ".join((heldout or corpus)[0].split()[:8]))

    def evaluate(step: int, final: bool) -> dict[str, float]:
        model.eval()
        texts = heldout if final else sample
        on_progress = run.measuring("held-out text")
        figures = bits_per_byte(forward, chat, texts, compute, settings.context, settings.micro_tokens, on_progress)
        continuation = greedy_continuation(model, chat, [chat.document_id, *opening], compute)
        run.sample(step, chat.tokenizer.decode(opening), continuation)
        model.train()
        return figures

    model.train()
    learner = Learner({"model": model}, settings, compute)
    with run.timed("training"):
        figures = train(
            run,
            learner,
            text_examples(stream, compute.device).for_passes(packed=forward.packs),
            lambda batch: next_token_loss(forward, batch),
            epochs=settings.epochs,
            max_steps=settings.max_steps,
            evaluate=evaluate,
        )
    model.eval()
    if run.main:
        with run.writing(MODEL) as folder:
            save_model(model, tokenizer, folder, chat.stop_ids)
    counts = {"documents": len(corpus), "tokens": len(stream.tokens), "heldout_documents": len(heldout)}
    run.finish(figures, counts=counts, model=model_info(model))


def starting_model(settings: PretrainSettings, chat: ChatFormat, compute: Compute) -> CausalModel:
    """A new model, or the base to go on from, checked against the tokenizer and context that it has to work with."""
    if not settings.base:
        return new_causal(settings, chat.tokenizer, compute)
    model = load_causal(settings.base, compute, trainable=True, checkpointing=settings.activation_checkpointing)
    check_vocabulary(chat, model, settings.base)
    if settings.context > context_of(model):
        raise InputError(
            f"context: {settings.base} was made for {context_of(model)} tokens, not {settings.context}",
            code="config_invalid",
        )
    return model


def first_bytes(texts: Sequence[str], max_bytes: int) -> Sequence[str]:
    """The first texts that hold at most `max_bytes` bytes; at least one if there is any."""
    reached = np.cumsum([len(text.encode()) for text in texts])
    return texts[: max(1, int((reached <= max_bytes).sum()))]
