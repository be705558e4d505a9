from __future__ import annotations

import numpy as np
import pytest

from tests.narrowing import existing
from training.run.intervals import clustered_mean, clustered_share, correlation_within, wilson, wins


def test_wilson_gives_the_figures_worked_out_by_hand() -> None:
    # 8 of 10, z = 1.96: center (0.8 + 0.19208) / 1.38416, half width 1.96 / 1.38416 * sqrt(0.016 + 0.0096040)
    low, high = wilson(8, 10, z=1.96)
    assert low == pytest.approx(0.490163, abs=1e-5)
    assert high == pytest.approx(0.943318, abs=1e-5)


def test_wilson_stays_inside_zero_and_one_and_is_never_empty() -> None:
    assert wilson(0, 5)[0] == 0
    assert wilson(0, 5)[1] > 0.3
    assert wilson(5, 5)[1] == 1
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_the_clustered_interval_matches_a_slow_bootstrap() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(size=60).tolist()
    clusters = (np.arange(60) // 3).tolist()
    fast = clustered_mean(values, clusters, resamples=4000, seed=1)
    slow = []
    for _ in range(4000):
        drawn = [v for c in generator.integers(0, 20, 20) for v in values[3 * c : 3 * c + 3]]
        slow.append(sum(drawn) / len(drawn))
    assert fast.value == pytest.approx(np.mean(values))
    assert fast.low == pytest.approx(np.quantile(slow, 0.025), abs=0.03)
    assert fast.high == pytest.approx(np.quantile(slow, 0.975), abs=0.03)
    assert fast.n == 60


def test_copies_of_an_observation_within_a_prompt_do_not_narrow_the_interval() -> None:
    values = [0.0, 1.0] * 20
    once = clustered_mean(values, list(range(40)), seed=5)
    copied = clustered_mean([v for v in values for _ in range(10)], [c for c in range(40) for _ in range(10)], seed=5)
    assert existing(copied.high) - existing(copied.low) == pytest.approx(
        existing(once.high) - existing(once.low), abs=1e-9
    )
    assert copied.n == 400


def test_weights_count_as_copies_do() -> None:
    weighted = clustered_mean([1.0, 0.0, 0.5], ["a", "b", "c"], weights=[2, 1, 1], seed=2)
    copied = clustered_mean([1.0, 1.0, 0.0, 0.5], ["a", "a", "b", "c"], seed=2)
    assert weighted[:3] == pytest.approx(copied[:3])


def test_one_prompt_has_a_mean_but_no_interval() -> None:
    assert clustered_mean([1.0, 0.0], ["a", "a"]) == (0.5, None, None, 2)


def test_a_share_that_is_always_one_gets_wilsons_interval_over_prompts() -> None:
    found = clustered_share([1.0] * 30, [i // 3 for i in range(30)])
    assert (found.low, found.high) == pytest.approx(wilson(10, 10))
    assert found.n == 30


def test_the_bootstrap_repeats_with_its_seed() -> None:
    values, clusters = [0.0, 1.0, 0.5, 0.25], [0, 1, 2, 3]
    assert clustered_mean(values, clusters, seed=9) == clustered_mean(values, clusters, seed=9)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        clustered_mean([1.0], [])
    with pytest.raises(ValueError, match="at least one value"):
        clustered_mean([], [])
    with pytest.raises(ValueError, match="all be zero"):
        clustered_mean([1.0, 2.0], ["a", "b"], weights=[0, 0])


def test_a_tie_is_half_a_win() -> None:
    assert wins([1.0, 2.0, 0.0], [1.0, 1.0, 3.0]) == [0.5, 1.0, 0.0]


def test_correlation_takes_each_prompts_mean_out() -> None:
    # Between prompts x and y rise together; within each they fall.
    x, y = [1, 2, 11, 12], [2, 1, 22, 21]
    assert correlation_within(x, y, ["a", "a", "b", "b"]) == pytest.approx(-1)
    assert correlation_within([1, 1], [1, 2], ["a", "a"]) == 0
