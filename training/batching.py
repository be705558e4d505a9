"""Which rows go into which optimiser step and which forward pass. Pure functions of sizes, seed and epoch.

An epoch's order depends on (seed, epoch) alone and every epoch has the same number of steps, so the position in the
data is the step number, and a resumed run sees exactly the rows it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Batch(NamedTuple):
    """Right-padded ids [B, T]; targets [B, T], true on what is to be predicted; weights [N] of the targets."""

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | float = 1.0


@dataclass(frozen=True)
class Sizes:
    """Of every row: the length of its longest sequence in tokens, how many sequences it holds, and its weight in the
    loss (for language models the number of tokens to learn, for rankings the row's weight)."""

    lengths: Rows
    sequences: Rows
    weights: NDArray[np.float64]

    @classmethod
    def of(
        cls, lengths: Sequence[int], weights: Sequence[float] | None = None, sequences: Sequence[int] | None = None
    ) -> Sizes:
        n = len(lengths)
        return cls(
            np.asarray(lengths, dtype=np.int64),
            np.ones(n, dtype=np.int64) if sequences is None else np.asarray(sequences, dtype=np.int64),
            np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64),
        )

    @property
    def tokens(self) -> Rows:
        return self.lengths * self.sequences


def steps_per_epoch(sizes: Sizes, batch_tokens: int) -> int:
    return max(1, min(len(sizes.lengths), round(int(sizes.tokens.sum()) / batch_tokens)))


def epoch_batches(sizes: Sizes, batch_tokens: int, seed: int, epoch: int) -> list[Rows]:
    """The rows of each optimiser step of an epoch: a random permutation cut into `steps_per_epoch` pieces of nearly
    equal tokens, none of them empty."""
    rows, steps = len(sizes.lengths), steps_per_epoch(sizes, batch_tokens)
    order = np.random.default_rng((seed, epoch)).permutation(rows)
    reached = np.cumsum(sizes.tokens[order])
    cuts = np.searchsorted(reached, reached[-1] * np.arange(1, steps) / steps) + 1
    for i in range(steps - 1):  # one giant row may hold several shares: every piece keeps at least one row
        cuts[i] = min(max(cuts[i], (cuts[i - 1] if i else 0) + 1), rows - (steps - 1 - i))
    return np.split(order, cuts)


def micro_batches(rows: Rows, sizes: Sizes, micro_tokens: int) -> list[Rows]:
    """`rows` sorted by length, cut so that no padded piece holds more than `micro_tokens`; a longer row goes alone."""
    ordered = rows[np.argsort(-sizes.lengths[rows], kind="stable")]
    pieces: list[list[int]] = []
    room = 0
    for row in ordered.tolist():
        sequences = int(sizes.sequences[row])
        if sequences > room:
            pieces.append([])
            room = micro_tokens // max(1, int(sizes.lengths[row]))
        pieces[-1].append(row)
        room -= sequences
    return [np.asarray(piece, dtype=np.int64) for piece in pieces]


def pad(sequences: Sequence[Sequence[int] | NDArray[np.integer]], value: int) -> torch.Tensor:
    """Right-padded [B, T] of int64. With causal attention, padding on the right needs no attention mask: no real token
    looks at it."""
    width = max(len(sequence) for sequence in sequences)
    padded = np.full((len(sequences), width), value, dtype=np.int64)
    for i, sequence in enumerate(sequences):
        padded[i, : len(sequence)] = sequence
    return torch.from_numpy(padded)
