"""Sequences laid end to end in one long row, so that a forward pass computes on next to no padding.

Linear layers and norms see one row of tokens; attention sees each sequence for itself. Sequences are padded to a
multiple of eight tokens, so that those of like length form one dense block for attention, and the row to a multiple of
64, so that few shapes occur and the kernels prepared for them are used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME: Final = "one_by_one"
SEQUENCE: Final = 8
ROW: Final = 64
OTHERS: Final = ("softcap", "s_aux", "sliding_window")  # Gemma 2's capped scores, sinks, windows
SAME: Final = 1e-3  # of the largest hidden state: more than rounding is another computation
Ids = Sequence[int] | NDArray[np.integer]


class Packed(NamedTuple):
    """S sequences in a row of T tokens."""

    ids: Tensor  # (1, T)
    positions: Tensor  # (1, T) of each token in its sequence
    starts: Tensor  # (S,) where each sequence begins, in the order they were given
    lengths: Tensor  # (S,) without padding
    blocks: list[tuple[int, int]]  # (n, L): n sequences of L tokens, padding counted, one after another


def pack(sequences: Sequence[Ids], pad: int) -> Packed:
    """The sequences, longest first in the row, on the CPU; `starts` keeps their own order."""
    lengths = np.array([len(sequence) for sequence in sequences])
    widths = -(-lengths // SEQUENCE) * SEQUENCE
    order = np.argsort(-widths, kind="stable")
    ends = np.cumsum(widths[order])
    total = -(-int(ends[-1]) // ROW) * ROW
    ids, positions = np.full(total, pad, dtype=np.int64), np.zeros(total, dtype=np.int64)
    starts = np.empty(len(sequences), dtype=np.int64)
    starts[order] = ends - widths[order]
    for sequence, start in zip(sequences, starts, strict=True):  # padding stays at position 0, which every model has
        ids[start : start + len(sequence)] = sequence
        positions[start : start + len(sequence)] = np.arange(len(sequence))
    blocks: list[tuple[int, int]] = []
    for width in widths[order].tolist():
        if blocks and blocks[-1][1] == width:
            blocks[-1] = (blocks[-1][0] + 1, width)
        else:
            blocks.append((1, width))
    if rest := total - int(ends[-1]):
        blocks.append((1, rest))
    row, places, begin, own = (torch.from_numpy(array) for array in (ids[None], positions[None], starts, lengths))
    return Packed(row, places, begin, own, blocks)


class TextBatch(NamedTuple):
    """Packed text with what is to be predicted in it: N target tokens."""

    packed: Packed
    states: Tensor  # (N,) where in the row each target is predicted
    targets: Tensor  # (N,)
    weights: Tensor | float = 1.0  # (N,)


def text_batch(
    sequences: Sequence[Ids], masks: Sequence[Sequence[bool] | NDArray[np.bool_]], pad: int, device: torch.device
) -> TextBatch:
    """The sequences with those tokens as targets whose mask is true; nothing predicts a first token."""
    packed = pack(sequences, pad)
    states, targets = [], []
    for ids, mask, start in zip(sequences, masks, packed.starts.tolist(), strict=True):
        wanted = np.flatnonzero(np.asarray(mask, dtype=bool)[1:])
        states.append(wanted + start)
        targets.append(np.asarray(ids, dtype=np.int64)[wanted + 1])
    flat = (torch.from_numpy(np.concatenate(parts)).to(device) for parts in (states, targets))
    return TextBatch(moved(packed, device), *flat)


def moved(packed: Packed, device: torch.device) -> Packed:
    ids, positions, starts, lengths, blocks = packed
    return Packed(ids.to(device), positions.to(device), starts.to(device), lengths.to(device), blocks)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 (none is made for this attention)
    *,
    blocks: list[tuple[int, int]],
    scaling: float | None = None,
    dropout: float = 0.0,
    **asked: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each sequence to itself, for transformers' attention interface.

    query (1, heads, T, d), key and value (1, kv_heads, T, d) -> (1, T, heads, d). Raises ValueError for what would
    make it another attention and a few tokens of a random model might not show.
    """
    if unknown := [name for name in OTHERS if asked.get(name) is not None]:
        raise ValueError(f"attention with {', '.join(unknown)} is not computed on packed sequences")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    sizes = [n * width for n, width in blocks]
    seen = []
    for block, *parts in zip(blocks, *(x[0].split(sizes, dim=1) for x in (query, key, value)), strict=True):
        q, k, v = (part.unflatten(1, block).transpose(0, 1) for part in parts)  # (n, heads, L, d)
        one = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, dropout_p=dropout if module.training else 0.0
        )
        seen.append(one.transpose(1, 2).flatten(0, 1))
    return torch.cat(seen)[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)


@contextmanager
def attending_one_by_one(model: PreTrainedModel) -> Iterator[None]:
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@dataclass
class Trunk:
    """A language model up to its last hidden states.

    Models whose attention does not look at all earlier tokens alike, or goes other ways than transformers' attention
    interface, compute on padded sequences instead; which it is, is found out by computing a few tokens both ways.
    """

    model: PreTrainedModel  # the base model, without its output matrix

    def __post_init__(self) -> None:
        self.packs = attends_to_all(self.model.config.get_text_config()) and self._agrees()

    def hidden(self, packed: Packed) -> Tensor:
        """Last hidden states (T, H) of the row; only those at the sequences' own tokens mean anything."""
        return self._packed(packed) if self.packs else self._padded(packed)

    def _packed(self, packed: Packed) -> Tensor:
        with attending_one_by_one(self.model):
            found = self.model(
                input_ids=packed.ids, position_ids=packed.positions, use_cache=False, blocks=packed.blocks
            )
        return found.last_hidden_state[0]

    def _padded(self, packed: Packed) -> Tensor:
        places = torch.arange(int(packed.lengths.max()), device=packed.lengths.device)
        within = places < packed.lengths[:, None]
        flat = (packed.starts[:, None] + places)[within]
        ids = packed.ids.new_zeros(within.shape)
        ids[within] = packed.ids[0, flat]
        hidden = self.model(input_ids=ids, use_cache=False).last_hidden_state
        row = hidden.new_zeros(packed.ids.shape[1], hidden.shape[2])
        return row.index_put((flat,), hidden[within])

    @torch.no_grad()
    def _agrees(self) -> bool:
        embedding = self.model.get_input_embeddings()
        draw = np.random.default_rng(0)
        packed = pack([draw.integers(0, embedding.num_embeddings, n) for n in (5, 9, 2)], 0)
        packed = moved(packed, embedding.weight.device)
        training = self.model.training
        self.model.eval()
        try:
            one, other = self._packed(packed), self._padded(packed)
        except (TypeError, ValueError, RuntimeError):
            return False
        finally:
            self.model.train(training)
        starts, lengths = packed.starts.tolist(), packed.lengths.tolist()
        own = [place for start, n in zip(starts, lengths, strict=True) for place in range(start, start + n)]
        return bool((one - other)[own].abs().max() <= SAME * other[own].abs().max())


def attends_to_all(config: Any) -> bool:
    """Whether no layer looks through a window only, which a few tokens would not show."""
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    kinds = set(getattr(config, "layer_types", None) or ())
    return not windowed and kinds <= {"full_attention"}
