"""Intervals for the figures we report.

Several observations of one prompt (replies, comparisons, annotators) are not independent, so the intervals resample
whole prompts: the cluster bootstrap of Efron & Tibshirani 1993, chapter 8.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
RESAMPLES = 2000
MAX_DRAWS = 4_000_000  # of clusters, held in memory at once


class Interval(NamedTuple):
    """A figure with its 95 % interval; `n` is the number of observations. `low` and `high` are None if the
    observations come from fewer than two clusters, which say nothing about the spread."""

    value: float
    low: float | None
    high: float | None
    n: int


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, equation 6). `successes` may hold halves, for ties."""
    if n <= 0:
        raise ValueError("an interval needs at least one observation")
    share = successes / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return max(0.0, center - half), min(1.0, center + half)


def clustered_mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    weights: Sequence[float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The (weighted) mean of `values` (N) with the percentile interval of a bootstrap that draws whole clusters.

    `clusters` (N) names the prompt of each value. Raises ValueError if lengths differ or nothing is given.
    """
    if len(values) != len(clusters) or (weights is not None and len(weights) != len(values)):
        raise ValueError("values, clusters and weights must have one length")
    if not values:
        raise ValueError("a mean needs at least one value")
    codes = {name: code for code, name in enumerate(dict.fromkeys(clusters))}
    cluster_of = np.fromiter((codes[name] for name in clusters), dtype=np.int64, count=len(clusters))
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = np.bincount(cluster_of, weights=weight * np.asarray(values, dtype=np.float64), minlength=len(codes))
    count = np.bincount(cluster_of, weights=weight, minlength=len(codes))
    if count.sum() <= 0:
        raise ValueError("the weights of a mean must not all be zero")
    mean = float(total.sum() / count.sum())
    if len(codes) < 2:
        return Interval(mean, None, None, len(values))
    from scipy import stats  # noqa: PLC0415 (takes a second, and most processes need no interval)

    with np.errstate(invalid="ignore"):  # a draw of clusters without weight has no mean
        resampled = stats.bootstrap(
            (total, count), _ratio_of_sums, paired=True, vectorized=True, method="percentile", n_resamples=resamples,
            batch=max(1, MAX_DRAWS // len(codes)), rng=np.random.default_rng(seed),
        ).bootstrap_distribution  # fmt: skip
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Interval(mean, float(low), float(high), len(values))


def _ratio_of_sums(total: NDArray[np.float64], count: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = total.sum(axis=axis) / count.sum(axis=axis)
    return ratio


def clustered_share(
    values: Sequence[float], clusters: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """As `clustered_mean`, for values in [0, 1] (accuracies, win rates). Where every cluster says 0 or every cluster
    says 1, resampling cannot spread, so Wilson's interval over the clusters stands in."""
    interval = clustered_mean(values, clusters, resamples=resamples, seed=seed)
    if interval.low is None or interval.low != interval.high or interval.value not in {0.0, 1.0}:
        return interval
    n = len(set(clusters))
    low, high = wilson(interval.value * n, n)
    return Interval(interval.value, low, high, interval.n)


def wins(challengers: Sequence[float], baselines: Sequence[float]) -> list[float]:
    """1 where `challengers` (N) scores above `baselines` (N), 0 below, 0.5 for a tie."""
    return [0.5 if a == b else float(a > b) for a, b in zip(challengers, baselines, strict=True)]


def correlation_within(x: Sequence[float], y: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Pearson's correlation of x (N) and y (N) after each cluster's mean is taken out; 0 where either does not vary."""
    codes = {name: code for code, name in enumerate(dict.fromkeys(clusters))}
    cluster_of = np.array([codes[name] for name in clusters], dtype=np.int64)
    size = np.bincount(cluster_of)
    centered = []
    for column in (np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)):
        mean = np.bincount(cluster_of, weights=column) / size
        centered.append(column - mean[cluster_of])
    scale = float(np.sqrt((centered[0] ** 2).sum() * (centered[1] ** 2).sum()))
    return float((centered[0] * centered[1]).sum() / scale) if scale > 1e-12 else 0.0
