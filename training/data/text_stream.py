"""Documents in one stream of tokens, cut into rows of the full context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.batching import Examples, Rows, Sizes
from training.data.chat_format import ChatFormat
from training.data.packing import TextBatch, text_batch
from training.run.run import Run

TEXTS_PER_CALL: Final = 2000


class TokenStream(NamedTuple):
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


def tokenize_texts(chat: ChatFormat, texts: Sequence[str], width: int, run: Run[Any] | None = None) -> TokenStream:
    documents: list[NDArray[np.int32]] = []
    for begin in range(0, len(texts), TEXTS_PER_CALL):
        if run is not None:
            run.stop_if_asked()
            run.progress(begin, len(texts), "tokenizing")
        encoded = chat.texts(list(texts[begin : begin + TEXTS_PER_CALL]))
        documents += [np.asarray([chat.document_id, *ids], dtype=np.int32) for ids in encoded]
    tokens = np.concatenate(documents) if documents else np.zeros(0, dtype=np.int32)
    return TokenStream(tokens, width, chat.document_id)


def text_examples(stream: TokenStream, device: torch.device, *, documents: bool = True) -> Examples[TextBatch]:
    """Every token is a target, document tokens only where `documents` says so; only the last row of the stream can be
    shorter than the others."""
    lengths = np.minimum(stream.width, len(stream.tokens) - stream.starts)
    sizes = Sizes.of(lengths.tolist(), np.maximum(0, lengths - 1).tolist())

    def batch(rows: Rows) -> TextBatch:
        token_rows = [stream.row(int(i)) for i in rows]
        masks = [np.ones(len(row), dtype=bool) if documents else row != stream.document for row in token_rows]
        return text_batch(token_rows, masks, stream.document, device)

    return Examples(sizes, batch)
