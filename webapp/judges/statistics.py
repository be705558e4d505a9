"""Figures of a judge's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from annotations.agreement import Z95

RESAMPLES: Final = 1000
RIDGE: Final = 0.01  # keeps the regression finite where every comparison has the same winner
STEPS: Final = 50
MIN_FOR_CONTROL: Final = 10  # comparisons; below, two coefficients say nothing
Floats = NDArray[np.float64]


class Share(NamedTuple):
    """A share or mean with its 95 % interval, over n observations; no interval where there is too little."""

    value: float
    low: float | None
    high: float | None
    n: int

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


@dataclass(frozen=True)
class Compared:
    """One prompt. `win`: 1 for the first model, 0 for the other, a half for a tie. Lengths in characters."""

    win: float
    length: int
    other_length: int


def wilson(successes: float, n: int) -> Share:
    """A share with the score interval (Wilson 1927, equation 6). `successes` may hold halves, for ties."""
    share = successes / n
    center = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * float(np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n)))
    return Share(share, max(0.0, center - half), min(1.0, center + half), n)


def mean_interval(values: Sequence[float]) -> Share:
    """The mean of one value a prompt, with the normal approximation's interval."""
    array = np.asarray(values, float)
    mean = float(array.mean())
    if len(array) < 2:
        return Share(mean, None, None, len(array))
    half = Z95 * float(array.std(ddof=1)) / float(np.sqrt(len(array)))
    return Share(mean, mean - half, mean + half, len(array))


def head_to_head(pairs: Sequence[Compared]) -> dict[str, Any]:
    """One model against another over at least one prompt: wins, and wins as they would be at equal length."""
    controlled = length_controlled(pairs)
    return {
        "wins": sum(pair.win > 0.5 for pair in pairs),
        "ties": sum(pair.win == 0.5 for pair in pairs),
        "losses": sum(pair.win < 0.5 for pair in pairs),
        "win_rate": wilson(sum(pair.win for pair in pairs), len(pairs)).as_json(),
        "length_controlled": controlled and controlled.as_json(),
        "lengths": [sum(side) / len(pairs) for side in zip(*((p.length, p.other_length) for p in pairs), strict=True)],
    }


def longer_preferred(pairs: Sequence[Compared]) -> dict[str, Any] | None:
    """Of decided pairs of replies of different lengths, the share in which the longer one is preferred."""
    decided = [
        (pair.length > pair.other_length) == (pair.win > 0.5)
        for pair in pairs
        if pair.win != 0.5 and pair.length != pair.other_length
    ]
    return wilson(sum(decided), len(decided)).as_json() if decided else None


def length_controlled(compared: Sequence[Compared], seed: int = 0) -> Share | None:
    """The share of wins that a logistic regression expects if both replies were of the same length, with the interval
    of a bootstrap over prompts. None if there are too few.

    As AlpacaEval's length-controlled win rate (Dubois et al. 2024, arXiv:2404.04475), for two models: the log-odds of a
    win are theta + phi * tanh(length difference / its standard deviation), and the length term is then left out. Their
    term for how hard a prompt is needs many models, and is left out too.
    """
    if len(compared) < MIN_FOR_CONTROL:
        return None
    wins = np.array([pair.win for pair in compared])
    differences = np.array([pair.length - pair.other_length for pair in compared], float)
    random = np.random.default_rng(seed)
    shares = []
    for _ in range(RESAMPLES):
        chosen = random.integers(0, len(wins), len(wins))
        shares.append(controlled_share(wins[chosen], differences[chosen]))
    low, high = np.quantile(shares, [0.025, 0.975])
    return Share(controlled_share(wins, differences), float(low), float(high), len(wins))


def controlled_share(wins: Floats, differences: Floats) -> float:
    """wins (N,), length differences (N,) → the expected share of wins at difference 0."""
    spread = float(differences.std())
    lengths = np.tanh(differences / spread) if spread > 0 else np.zeros_like(differences)
    return float(expit(logistic_fit(np.stack([np.ones_like(lengths), lengths], axis=1), wins)[0]))


def logistic_fit(features: Floats, targets: Floats) -> Floats:
    """Coefficients (F,) of a logistic regression of targets (N,), 0 to 1, on features (N, F): Newton's method on the
    log-likelihood with a small ridge, which has one maximum."""
    coefficients: Floats = np.zeros(features.shape[1])
    for _ in range(STEPS):
        expected: Floats = expit(features @ coefficients)
        gradient = features.T @ (targets - expected) - RIDGE * coefficients
        curvature = (features * (expected * (1 - expected))[:, None]).T @ features + RIDGE * np.eye(features.shape[1])
        step = np.linalg.solve(curvature, gradient)
        coefficients = coefficients + np.clip(step, -2.0, 2.0)
        if float(np.abs(step).max()) < 1e-9:
            break
    return coefficients
