"""Losses of language models on packed text, and what is reported of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from training.data.chat_format import ChatFormat
from training.data.packing import TextBatch
from training.data.text_stream import text_examples, tokenize_texts
from training.models.compute import Compute
from training.models.forward import Forward
from training.optim.meters import Sums, mean_figures
from training.run.reporting import ProgressCallback, ignore_progress


def weighted_loss(forward: Forward, batch: TextBatch) -> Sums:
    """Sum over target tokens of loss (nats) times the row's weight, and the sum of those weights."""
    losses = forward.losses(batch) * batch.weights
    return {"loss": (losses.sum(), float(torch.as_tensor(batch.weights).sum()))}


def next_token_loss(forward: Forward, batch: TextBatch) -> Sums:
    """Sum of the targets' losses in nats, and how many they are."""
    losses = forward.losses(batch)
    return {"loss": (losses.sum(), losses.numel())}


def bits_per_byte(
    forward: Forward,
    chat: ChatFormat,
    texts: Sequence[str],
    compute: Compute,
    context: int,
    micro_tokens: int,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[str, float]:
    """{bits_per_byte, heldout_loss} of `texts`, packed into rows of `context` tokens; {} if there is no text.

    Bits per byte is the text's total negative log-likelihood in bits over its bytes of UTF-8, so it compares models of
    different tokenizers. Document tokens are read but not counted. heldout_loss is the mean over tokens, nats.
    """
    stream = tokenize_texts(chat, texts, context)
    tokens = int((stream.tokens != stream.document).sum())
    if not tokens:
        return {}

    mean = mean_figures(
        text_examples(stream, compute.device, documents=False).for_passes(packed=forward.packs),
        lambda batch: next_token_loss(forward, batch),
        compute,
        micro_tokens,
        on_progress=on_progress,
    )["loss"]
    size = sum(len(text.encode()) for text in texts)
    return {"bits_per_byte": mean * tokens / math.log(2) / size, "heldout_loss": mean}
