"""Figures of a judge on numbers worked out by hand, and against a slow, obvious form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.narrowing import existing
from webapp.judges.results import cohens_kappa
from webapp.judges.statistics import Compared, length_controlled, logistic_fit, mean_interval, wilson


def test_wilson_is_as_in_the_textbook() -> None:
    share = wilson(8, 10)  # Brown, Cai & DasGupta 2001: 0.4902 to 0.9433
    assert (share.value, round(existing(share.low), 4), round(existing(share.high), 4)) == (0.8, 0.4902, 0.9433)


def test_a_mean_of_one_value_has_no_interval() -> None:
    assert mean_interval([7.0]) == (7.0, None, None, 1)
    assert mean_interval([6.0, 8.0]).low == pytest.approx(7 - 1.959964 * np.sqrt(2) / np.sqrt(2))


def test_the_regression_finds_the_maximum_of_its_likelihood() -> None:
    draw = np.random.default_rng(1)
    features = np.stack([np.ones(200), draw.normal(size=200)], axis=1)
    targets = draw.integers(0, 3, 200) / 2

    def loss(w: np.ndarray) -> float:
        z = features @ w
        return float(np.sum(np.logaddexp(0, z) - targets * z) + 0.005 * w @ w)

    assert logistic_fit(features, targets) == pytest.approx(minimize(loss, np.zeros(2)).x, abs=1e-4)


def test_a_win_by_length_alone_is_none_at_equal_length() -> None:
    """The longer one wins nine times of ten, and the first model is longer in 80 of 100."""
    draw = np.random.default_rng(0)
    pairs = []
    for at in range(100):
        longer = at < 80
        other, more = 100, int(draw.integers(1, 100))
        win = longer if at % 10 else not longer
        pairs.append(Compared(float(win), other + (more if longer else -more), other))
    controlled = existing(length_controlled(pairs))
    raw = sum(pair.win for pair in pairs) / 100
    assert raw == 0.74
    assert existing(controlled.low) < 0.5 < existing(controlled.high)
    assert controlled.value < raw - 0.1


def test_a_win_that_does_not_depend_on_length_stays() -> None:
    pairs = [Compared(1.0 if at % 4 else 0.0, 100 + at % 7, 100 + at % 5) for at in range(100)]
    assert existing(length_controlled(pairs)).value == pytest.approx(0.75, abs=0.03)


def test_only_wins_and_equal_lengths_still_give_a_figure() -> None:
    controlled = existing(length_controlled([Compared(1.0, 50, 50)] * 12))
    assert 0.95 < controlled.value <= 1
    assert length_controlled([Compared(1.0, 50, 40)] * 9) is None


def test_kappa_by_hand() -> None:
    """20 both A, 15 both B, 5 and 10 apart (Cohen's example): observed 0.7, by chance 0.5."""
    pairs = [(1, 1)] * 20 + [(1, -1)] * 5 + [(-1, 1)] * 10 + [(-1, -1)] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4)
    assert cohens_kappa([(1, 1)] * 3) is None
