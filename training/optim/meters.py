"""Figures of a run: sums with their counts, added up over micro-batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from training.data.batching import Examples, micro_batches
from training.distributed.collectives import all_gather, local_shard
from training.distributed.launch import world_size
from training.models.compute import Compute
from training.run.reporting import ProgressCallback, ignore_progress

B = TypeVar("B")
Sums = Mapping[str, tuple[Tensor | float, float]]


@dataclass
class Means:
    """Running sums and counts of named figures."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, figures: Sums) -> None:
        for name, (total, count) in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(total)
            self.counts[name] = self.counts.get(name, 0.0) + count

    def of_all(self) -> Means:
        """Those of all processes together."""
        combined = Means()
        for means in all_gather(self):
            combined.add({name: (total, means.counts[name]) for name, total in means.sums.items()})
        return combined

    def values(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items() if self.counts[name]}


class Meter:
    """Figures since they were last reported, and how many tokens per second were learned from."""

    def __init__(self) -> None:
        self.means = Means()
        self.tokens = self.tokens_before = 0
        self.seconds = self.seconds_before = 0.0

    def report(self) -> dict[str, float]:
        """The figures since the last call."""
        rate = (self.tokens - self.tokens_before) / max(1e-9, self.seconds - self.seconds_before)
        values = self.means.values() | {"tokens_per_second": rate}
        self.means, self.tokens_before, self.seconds_before = Means(), self.tokens, self.seconds
        return values


@torch.no_grad()
def mean_figures(
    examples: Examples[B],
    loss: Callable[[B], Sums],
    compute: Compute,
    micro_tokens: int,
    max_tokens: int = 0,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[str, float]:
    """The figures of `loss` over all rows, or over a fixed random part of at most `max_tokens` tokens."""
    rows = np.random.default_rng(0).permutation(len(examples.sizes))
    if max_tokens:
        rows = rows[: max(1, int((np.cumsum(examples.sizes.tokens[rows]) <= max_tokens).sum()))]
    means = Means()
    batches = local_shard(micro_batches(rows, examples.sizes, micro_tokens, world_size()))
    for behind, batch in enumerate(batches):
        on_progress(behind, len(batches))
        with compute.autocast():
            means.add(loss(examples.batch(batch)))
    on_progress(len(batches), len(batches))
    return means.of_all().values()
