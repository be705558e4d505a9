"""Learns to continue text: documents packed into rows of the full context, next-token loss on every token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.contract import MODEL, InputError, PretrainSettings, TextRow
from training.data.batching import Rows, Sizes
from training.data.chat_format import ChatFormat
from training.data.packing import TextBatch, text_batch
from training.engine.preview import greedy
from training.models.checks import check_vocabulary
from training.models.forward import Forward
from training.models.loading import (
    CausalModel,
    Compute,
    about,
    context_of,
    load_causal,
    load_tokenizer,
    new_causal,
    prepare,
    save_model,
)
from training.optim.loop import Examples, Learner, Sums, mean_figures, train
from training.run.run import Run

TEXTS_AT_ONCE: Final = 2000
HELDOUT_BYTES: Final = 24  # bytes for each token of a batch, measured while training goes on; at its end, all of it


def main(run: Run[PretrainSettings]) -> None:
    settings = run.config
    corpus = [row.text for row in run.rows("corpus", TextRow)]
    heldout = [row.text for row in run.rows("heldout", TextRow)]
    compute = prepare(run)
    source = settings.tokenizer or settings.base
    tokenizer = load_tokenizer(source, run)
    chat = ChatFormat(tokenizer, source)
    model = begin(settings, chat, compute)
    forward = Forward(model)

    with run.timed("tokenizing"):
        stream = stream_of(chat, corpus, settings.context, run)
    if len(stream.tokens) < 2:
        raise InputError("pretrain: the corpus has no text to learn from", code="too_few_rows")
    run.metric(0, {"tokens": len(stream.tokens), "parameters": about(model)["parameters"]})
    part = first_bytes(heldout, HELDOUT_BYTES * settings.batch_tokens)
    opening = chat.text(" ".join((heldout or corpus)[0].split()[:8]))

    def evaluate(step: int, final: bool) -> dict[str, float]:
        model.eval()
        texts = heldout if final else part
        figures = bits_per_byte(forward, chat, texts, compute, settings.context, settings.micro_tokens)
        run.sample(step, chat.tokenizer.decode(opening), greedy(model, chat, [chat.document_id, *opening], compute))
        model.train()
        return figures

    model.train()
    learner = Learner({"model": model}, settings, compute)
    with run.timed("training"):
        figures = train(
            run,
            learner,
            examples(stream, compute),
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
    run.finish(figures, counts=counts, model=about(model))


def begin(settings: PretrainSettings, chat: ChatFormat, compute: Compute) -> CausalModel:
    """A new model, or the base to go on from, held against the tokenizer and context that it has to work with."""
    if not settings.base:
        return new_causal(settings, chat.tokenizer, compute)
    model = load_causal(settings.base, compute, trainable=True)
    check_vocabulary(chat, model, settings.base)
    if settings.context > context_of(model):
        raise InputError(
            f"context: {settings.base} was made for {context_of(model)} tokens, not {settings.context}",
            code="config_invalid",
        )
    return model


class Stream(NamedTuple):
    """Documents in one stream of tokens [N], each after a document token, cut into rows of `width` tokens, whose first
    token is the last of the row before, so that every token but the very first is predicted once."""

    tokens: NDArray[np.int32]
    width: int
    document: int

    @property
    def starts(self) -> Rows:
        return np.arange(0, max(1, len(self.tokens) - 1), self.width - 1)

    def row(self, i: int) -> NDArray[np.int32]:
        start = i * (self.width - 1)
        return self.tokens[start : start + self.width]


def stream_of(chat: ChatFormat, texts: Sequence[str], width: int, run: Run[PretrainSettings] | None = None) -> Stream:
    pieces: list[NDArray[np.int32]] = []
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        if run is not None:
            run.stop_if_asked()
            run.progress(first, len(texts), "tokenizing")
        encoded = chat.texts(list(texts[first : first + TEXTS_AT_ONCE]))
        pieces += [np.asarray([chat.document_id, *ids], dtype=np.int32) for ids in encoded]
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    return Stream(tokens, width, chat.document_id)


def examples(stream: Stream, compute: Compute, *, documents: bool = True) -> Examples[TextBatch]:
    """Every token is a target, document tokens only where `documents` says so; only the last row of the stream can be
    shorter than the others."""
    lengths = np.minimum(stream.width, len(stream.tokens) - stream.starts)
    sizes = Sizes.of(lengths.tolist(), np.maximum(0, lengths - 1).tolist())

    def batch(rows: Rows) -> TextBatch:
        found = [stream.row(int(i)) for i in rows]
        masks = [np.ones(len(row), dtype=bool) if documents else row != stream.document for row in found]
        return text_batch(found, masks, stream.document, compute.device)

    return Examples(sizes, batch)


def next_token_loss(forward: Forward, batch: TextBatch) -> Sums:
    """Sum of the targets' losses in nats, and how many they are."""
    losses = forward.losses(batch)
    return {"loss": (losses.sum(), losses.numel())}


def bits_per_byte(
    forward: Forward, chat: ChatFormat, texts: Sequence[str], compute: Compute, context: int, micro_tokens: int
) -> dict[str, float]:
    """{bits_per_byte, heldout_loss} of `texts`, packed into rows of `context` tokens; {} where there is no text.

    Bits per byte is the text's total negative log-likelihood in bits over its bytes of UTF-8, so it compares models of
    different tokenizers. Document tokens are read but not counted. heldout_loss is the mean over tokens, nats.
    """
    stream = stream_of(chat, texts, context)
    tokens = int((stream.tokens != stream.document).sum())
    if not tokens:
        return {}

    mean = mean_figures(
        examples(stream, compute, documents=False), lambda batch: next_token_loss(forward, batch), compute, micro_tokens
    )["loss"]
    size = sum(len(text.encode()) for text in texts)
    return {"bits_per_byte": mean * tokens / math.log(2) / size, "heldout_loss": mean}


def first_bytes(texts: Sequence[str], most: int) -> Sequence[str]:
    """The first texts that hold at most `most` bytes; at least one where there is any."""
    reached = np.cumsum([len(text.encode()) for text in texts])
    return texts[: max(1, int((reached <= most).sum()))]
