"""Which rows go into which optimizer step and which forward pass. Pure functions of sizes, seed and epoch.

An epoch's order depends on (seed, epoch) alone and every epoch has the same number of steps, so the position in the
data is the step number, and a resumed run sees exactly the rows it would have seen.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
B = TypeVar("B")


@dataclass(frozen=True)
class Sizes:
    """Of every row: its tokens, its weight in the loss (for language models the number of tokens to learn, for rankings
    the rankings' weight), how many sequences it has, and the tokens of the longest of them.

    pads: whether a pass pads its sequences to the longest, as for models that cannot compute on packed ones."""

    tokens: Rows
    weights: NDArray[np.float64]
    sequences: Rows
    longest: Rows
    pads: bool = False

    @classmethod
    def of(cls, tokens: Sequence[int], weights: Sequence[float] | None = None, *, pads: bool = False) -> Sizes:
        """Of rows of one sequence each."""
        counts = np.asarray(tokens, dtype=np.int64)
        weighed = np.ones(len(counts)) if weights is None else np.asarray(weights, dtype=np.float64)
        return cls(counts, weighed, np.ones_like(counts), counts, pads)

    @classmethod
    def of_several(cls, tokens: Sequence[Sequence[int]], weights: Sequence[float]) -> Sizes:
        """Of rows of several sequences, whose tokens are given."""
        total, count, longest = (
            np.array([measure(row) for row in tokens], dtype=np.int64) for measure in (sum, len, max)
        )
        return cls(total, np.asarray(weights, dtype=np.float64), count, longest)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Examples(Generic[B]):
    """Rows to learn from: their sizes, and how some of them become a batch on the device."""

    sizes: Sizes
    batch: Callable[[Rows], B]

    def for_passes(self, *, packed: bool) -> Examples[B]:
        """The same for a model that computes on packed sequences, or on padded ones."""
        return replace(self, sizes=replace(self.sizes, pads=not packed))


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
    longer row on its own; about a multiple of `processes` pieces, so that as many processes have as much to do. Where
    passes are padded, the tokens are those that are computed: as many as the longest sequence has, for each."""
    if sizes.pads:
        return padded_micro_batches(rows, sizes, micro_tokens, processes)
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


def padded_micro_batches(rows: Rows, sizes: Sizes, micro_tokens: int, processes: int) -> list[Rows]:
    ordered = rows[np.argsort(-sizes.longest[rows], kind="stable")]
    longest, reached = sizes.longest[ordered], np.cumsum(sizes.sequences[ordered])

    def cuts(budget: int) -> list[int]:
        """Where pieces of at most so many tokens end, each as large as it can be."""
        ends = [0]
        while ends[-1] < len(ordered):
            begin = ends[-1]
            before = int(reached[begin - 1]) if begin else 0
            fitting = before + budget // max(1, int(longest[begin]))
            ends.append(max(begin + 1, int(np.searchsorted(reached, fitting, side="right"))))
        return ends

    pieces = math.ceil((len(cuts(micro_tokens)) - 1) / processes) * processes
    smallest = bisect_left(range(1, micro_tokens), True, key=lambda budget: len(cuts(budget)) - 1 <= pieces) + 1
    ends = cuts(smallest)
    return [ordered[begin:end] for begin, end in pairwise(ends)]
