"""Krippendorff's alpha: how far people agree beyond chance, with any number of people and missing labels.

Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Level = Literal["nominal", "ordinal"]
Floats = NDArray[np.float64]


def krippendorff_alpha(units: ArrayLike, values: ArrayLike, level: Level) -> float | None:
    """Alpha over N labels: `values[i]` is one person's label of the unit `units[i]`; both have the shape (N,).

    1 is perfect agreement, 0 is what chance gives. Units with one label say nothing and are left out. None if no unit
    has two labels, or if all labels are the same, for which alpha is not defined.
    """
    counts = pairable_counts(np.asarray(units), np.asarray(values))
    observed = coincidences(counts)
    totals = observed.sum(axis=0)  # (C,): how often each value occurs
    distances = squared_distances(totals, level)
    expected = float(totals @ distances @ totals)
    if expected == 0:
        return None
    return 1.0 - (float(totals.sum()) - 1.0) * float((observed * distances).sum()) / expected


def pairable_counts(units: NDArray[np.generic], values: NDArray[np.generic]) -> Floats:
    """(U, C): how many people gave unit u the value c, for the units with two labels or more; values ascend."""
    names, unit = np.unique(units, return_inverse=True)
    kinds, value = np.unique(values, return_inverse=True)
    counts = np.bincount(unit * len(kinds) + value, minlength=len(names) * len(kinds))
    counts = counts.reshape(len(names), len(kinds)).astype(np.float64)
    paired: NDArray[np.float64] = counts[counts.sum(axis=1) > 1]
    return paired


def coincidences(counts: Floats) -> Floats:
    """(C, C): pairs of labels of one unit by two people, each unit with m labels weighted by 1 / (m - 1)."""
    weighted = counts / (counts.sum(axis=1, keepdims=True) - 1.0)
    coincidences: NDArray[np.float64] = weighted.T @ counts - np.diag(weighted.sum(axis=0))
    return coincidences


def squared_distances(totals: Floats, level: Level) -> Floats:
    """(C, C): how far apart two values are. Ordinal: by how many labels lie between, ends half counted."""
    if level == "nominal":
        return 1.0 - np.eye(len(totals))
    middles = np.cumsum(totals) - totals / 2
    return (middles[:, None] - middles[None, :]) ** 2
