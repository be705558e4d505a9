"""Which rows go into which optimizer step and which forward pass. Pure functions of sizes, seed and epoch.

An epoch's order depends on (seed, epoch) alone and every epoch has the same number of steps, so the position in the
data is the step number, and a resumed run sees exactly the rows it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
B = TypeVar("B")


@dataclass(frozen=True)
class Sizes:
    """Of every row: its tokens, and its weight in the loss (for language models the number of tokens to learn, for
    rankings the rankings' weight)."""

    tokens: Rows
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, tokens: Sequence[int], weights: Sequence[float] | None = None) -> Sizes:
        return cls(
            np.asarray(tokens, dtype=np.int64),
            np.ones(len(tokens)) if weights is None else np.asarray(weights, dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Examples(Generic[B]):
    """Rows to learn from: their sizes, and how some of them become a batch on the device."""

    sizes: Sizes
    batch: Callable[[Rows], B]


def steps_per_epoch(sizes: Sizes, batch_tokens: int) -> int:
    return max(1, min(len(sizes), round(int(sizes.tokens.sum()) / batch_tokens)))


def epoch_batches(sizes: Sizes, batch_tokens: int, seed: int, epoch: int) -> list[Rows]:
    """The rows of each optimizer step of an epoch: a random permutation cut into `steps_per_epoch` pieces of nearly
    equal tokens, none of them empty."""
    rows, steps = len(sizes), steps_per_epoch(sizes, batch_tokens)
    order = np.random.default_rng((seed, epoch)).permutation(rows)
    reached = np.cumsum(sizes.tokens[order])
    cuts = np.searchsorted(reached, reached[-1] * np.arange(1, steps) / steps) + 1
    for i in range(steps - 1):  # one giant row may hold several shares: every piece keeps at least one row
        cuts[i] = min(max(cuts[i], (cuts[i - 1] if i else 0) + 1), rows - (steps - 1 - i))
    return np.split(order, cuts)


def micro_batches(rows: Rows, sizes: Sizes, micro_tokens: int, processes: int = 1) -> list[Rows]:
    """`rows` sorted by size and cut into the fewest pieces of nearly equal tokens, none above `micro_tokens` but a
    longer row on its own; about a multiple of `processes` pieces, so that as many processes have as much to do."""
    ordered = rows[np.argsort(-sizes.tokens[rows], kind="stable")]
    tokens = sizes.tokens[ordered]
    total = int(tokens.sum())
    share = math.ceil(total / (processes * max(1, math.ceil(total / (processes * micro_tokens)))))
    batches: list[list[int]] = []
    held = micro_tokens
    for row, size in zip(ordered.tolist(), tokens.tolist(), strict=True):
        if not batches or held >= share or held + size > micro_tokens:
            batches.append([])
            held = 0
        batches[-1].append(row)
        held += size
    return [np.asarray(batch, dtype=np.int64) for batch in batches]
