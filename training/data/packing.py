"""Sequences laid end to end in one long row, so that a forward pass computes on next to no padding.

Linear layers and norms see one row of tokens; attention sees each sequence for itself. Sequences are padded to a
multiple of eight tokens, so that those of like length form one dense block for attention, and the row to a multiple of
64, so that few shapes occur and the kernels prepared for them are used again.

Where sequences begin with the same tokens, as replies to one prompt and chats under one system prompt do, those are
computed once: in a causal model, what is computed at a token depends on nothing but the tokens up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.kernels.prefixes import SharedPrefixes

SEQUENCE: Final = 8
ROW: Final = 64
LEAST_SAVED: Final = 1 / 16  # of the tokens; below that, laying them out for attention costs as much
Ids = Sequence[int] | NDArray[np.integer]


class Packed(NamedTuple):
    """S sequences in a row of T tokens."""

    ids: Tensor  # (1, T)
    positions: Tensor  # (1, T) of each token in its sequence
    starts: Tensor  # (S,) where each sequence begins, in the order they were given
    lengths: Tensor  # (S,) without padding
    blocks: list[tuple[int, int]]  # (n, L): n sequences of L tokens, padding counted, one after another
    offsets: Tensor  # int32, where each of those sequences begins, and T
    shared: SharedPrefixes | None = None  # unless all are computed

    @property
    def computed(self) -> int:
        """How many tokens a pass computes."""
        return self.ids.shape[1] if self.shared is None else len(self.shared.computed)


def pack(sequences: Sequence[Ids], pad: int, multiple: int = ROW) -> Packed:
    """The sequences, longest first in the row, on the CPU; `starts` keeps their own order. The row, and the number of
    its tokens that are computed, are multiples of `multiple`."""
    lengths = np.array([len(sequence) for sequence in sequences])
    widths = -(-lengths // SEQUENCE) * SEQUENCE
    order = np.argsort(-widths, kind="stable")
    ends = np.cumsum(widths[order])
    offsets = [0, *ends.tolist()]
    total = -(-int(ends[-1]) // multiple) * multiple
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
    if padding := total - int(ends[-1]):
        blocks.append((1, padding))
        offsets.append(total)
    row, places, begin, sizes = (torch.from_numpy(array) for array in (ids[None], positions[None], starts, lengths))
    shared = shared_prefixes(sequences, starts, total, multiple)
    return Packed(row, places, begin, sizes, blocks, torch.tensor(offsets, dtype=torch.int32), shared)


def shared_prefixes(
    sequences: Sequence[Ids], starts: NDArray[np.int64], total: int, multiple: int
) -> SharedPrefixes | None:
    """For sequences that begin at `starts` in a row of `total` tokens; None where it would save next to nothing."""
    arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    order = sorted(range(len(arrays)), key=lambda i: arrays[i].astype(">u4").tobytes())
    is_new, copies = np.zeros(total, dtype=bool), np.zeros(total, dtype=np.int64)  # copies: places in the row, at first
    previous: tuple[NDArray[np.int64], int] | None = None
    for i in order:  # neighbors in this order share the most
        ids, start = arrays[i], int(starts[i])
        shared = 0
        if previous is not None:
            shared = common_prefix(ids, previous[0])
            copies[start : start + shared] = copies[previous[1] : previous[1] + shared]
        copies[start + shared : start + len(ids)] = np.arange(start + shared, start + len(ids))
        is_new[start + shared : start + len(ids)] = True
        previous = ids, start
    distinct = np.flatnonzero(is_new)
    count = -(-len(distinct) // multiple) * multiple
    if count > total * (1 - LEAST_SAVED):
        return None
    # What fills up the row of those computed are other places, so that all differ; nothing reads what comes of them.
    computed = np.concatenate([distinct, np.flatnonzero(~is_new)[: count - len(distinct)]])
    number = np.zeros(total, dtype=np.int64)
    number[computed] = np.arange(count)
    return SharedPrefixes(torch.from_numpy(computed), torch.from_numpy(number[copies]))


def common_prefix(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """How many tokens both begin with."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length


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
        learned = np.flatnonzero(np.asarray(mask, dtype=bool)[1:])
        states.append(learned + start)
        targets.append(np.asarray(ids, dtype=np.int64)[learned + 1])
    flat = (torch.from_numpy(np.concatenate(arrays)).to(device) for arrays in (states, targets))
    return TextBatch(moved(packed, device), *flat)


def moved(packed: Packed, device: torch.device) -> Packed:
    ids, positions, starts, lengths, blocks, offsets, shared = packed
    row, places, begin, sizes = (tensor.to(device) for tensor in (ids, positions, starts, lengths))
    if shared is not None:
        shared = SharedPrefixes(*(tensor.to(device) for tensor in shared))
    return Packed(row, places, begin, sizes, blocks, offsets.to(device), shared)
