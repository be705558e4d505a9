"""Sequences laid end to end in one long row, so that a forward pass computes on next to no padding.

Linear layers and norms see one row of tokens; attention sees each sequence for itself. Sequences are padded to a
multiple of eight tokens, so that those of like length form one dense block for attention, and the row to a multiple of
64, so that few shapes occur and the kernels prepared for them are used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SEQUENCE: Final = 8
ROW: Final = 64
Ids = Sequence[int] | NDArray[np.integer]


class Packed(NamedTuple):
    """S sequences in a row of T tokens."""

    ids: Tensor  # (1, T)
    positions: Tensor  # (1, T) of each token in its sequence
    starts: Tensor  # (S,) where each sequence begins, in the order they were given
    lengths: Tensor  # (S,) without padding
    blocks: list[tuple[int, int]]  # (n, L): n sequences of L tokens, padding counted, one after another
    offsets: Tensor  # int32, where each of those sequences begins, and T


def pack(sequences: Sequence[Ids], pad: int) -> Packed:
    """The sequences, longest first in the row, on the CPU; `starts` keeps their own order."""
    lengths = np.array([len(sequence) for sequence in sequences])
    widths = -(-lengths // SEQUENCE) * SEQUENCE
    order = np.argsort(-widths, kind="stable")
    ends = np.cumsum(widths[order])
    offsets = [0, *ends.tolist()]
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
    if padding := total - int(ends[-1]):
        blocks.append((1, padding))
        offsets.append(total)
    row, places, begin, sizes = (torch.from_numpy(array) for array in (ids[None], positions[None], starts, lengths))
    return Packed(row, places, begin, sizes, blocks, torch.tensor(offsets, dtype=torch.int32))


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
    ids, positions, starts, lengths, blocks, offsets = packed
    row, places, begin, sizes = (tensor.to(device) for tensor in (ids, positions, starts, lengths))
    return Packed(row, places, begin, sizes, blocks, offsets.to(device))
