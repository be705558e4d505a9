from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.narrowing import existing
from training.preferences.losses import (
    Ranked,
    bradley_terry_nll,
    calibration_temperature,
    collate_comparisons,
    comparisons_of,
    davidson_nll,
    preference_loss,
)


def test_a_ranking_of_four_is_six_comparisons() -> None:
    assert sorted(comparisons_of([[2], [0], [3], [1]])) == [
        (0, 1, 1.0), (0, 3, 1.0), (2, 0, 1.0), (2, 1, 1.0), (2, 3, 1.0), (3, 1, 1.0),
    ]  # fmt: skip


def test_rankings_of_one_set_point_at_the_same_scores() -> None:
    found = collate_comparisons([[Ranked([[1], [0]]), Ranked([[0], [1]])], [Ranked([[0], [1]])]])
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(1, 0), (0, 1), (2, 3)]


def test_tied_replies_are_compared_as_ties_or_not_at_all() -> None:
    assert sorted(comparisons_of([[2], [1, 0]])) == [(0, 1, 0.5), (2, 0, 1.0), (2, 1, 1.0)]
    assert sorted(comparisons_of([[2], [1, 0]], "drop")) == [(2, 0, 1.0), (2, 1, 1.0)]
    assert comparisons_of([[0, 1]], "drop") == []


def test_rankings_of_a_batch_point_at_their_own_scores_and_share_their_weight() -> None:
    found = collate_comparisons([[Ranked([[1], [0]], 2.0, 3.0)], [Ranked([[0], [1, 2]])]])
    assert found.first.tolist() == [1, 2, 2, 3]
    assert found.second.tolist() == [0, 3, 4, 4]
    assert found.outcome.tolist() == [1, 1, 1, 0.5]
    assert found.weight.tolist() == pytest.approx([2, 1 / 3, 1 / 3, 1 / 3])
    assert found.strength.tolist() == [3, 0, 0, 0]


def test_a_strength_says_nothing_about_a_tie() -> None:
    found = collate_comparisons([[Ranked([[0], [1, 2]], 1.0, 2.0)]])
    assert found.strength[found.outcome == 0.5].tolist() == [0]
    assert found.strength[found.outcome == 1].tolist() == [2, 2]


def test_nothing_to_compare_is_an_empty_batch() -> None:
    found = collate_comparisons([[Ranked([[0, 1]])]], "drop")
    assert found.first.shape == (0,)
    assert preference_loss(torch.zeros(2), found).item() == 0


def test_bradley_terry_gives_the_figures_worked_out_by_hand() -> None:
    loss = bradley_terry_nll(torch.tensor([0.0, 2.0, -1.0, 2.0]), torch.tensor([1.0, 1.0, 1.0, 0.5]))
    # ln 2; ln(1 + e^-2); ln(1 + e); mean of ln(1 + e^-2) and ln(1 + e^2)
    assert loss.tolist() == pytest.approx([0.693147, 0.126928, 1.313262, 1.126928], abs=1e-6)


def test_a_margin_asks_for_more_difference() -> None:
    assert bradley_terry_nll(torch.tensor([2.0]), torch.tensor([1.0]), 2.0).item() == pytest.approx(math.log(2))


def test_davidson_gives_the_figures_worked_out_by_hand() -> None:
    # d = 2 ln 3, nu = 2: weights 3 : 1/3 : 2, which sum to 16/3
    difference = torch.full((3,), 2 * math.log(3))
    loss = davidson_nll(difference, torch.tensor([1.0, 0.0, 0.5]), torch.tensor(math.log(2)))
    assert (-loss).exp().tolist() == pytest.approx([9 / 16, 1 / 16, 6 / 16])


def test_davidson_without_ties_is_bradley_terry() -> None:
    difference, outcome = torch.randn(9, generator=torch.Generator().manual_seed(0)), torch.ones(9)
    davidson = davidson_nll(difference, outcome, torch.tensor(-40.0))
    assert torch.allclose(davidson, bradley_terry_nll(difference, outcome), atol=1e-6)


@pytest.mark.parametrize("log_nu", [None, torch.tensor(-0.3)])
def test_the_batch_loss_matches_a_slow_sum_over_comparisons(log_nu: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(7, generator=generator)
    rankings = [([[1], [0, 2]], 0.5, 2.0), ([[3], [0], [1, 2]], 1.0, None)]
    slow, start = 0.0, 0
    for groups, weight, strength in rankings:
        place = {i: k for k, group in enumerate(groups) for i in group}
        pairs = [sorted((i, j), key=place.__getitem__) for i in place for j in place if i < j]
        for i, j in pairs:
            a, b = scores[start + i].item(), scores[start + j].item()
            tie = place[i] == place[j]
            d = a - b - (0 if tie else 0.1 * (strength or 0))
            if log_nu is None:
                win = 1 / (1 + math.exp(-d))
                loss = -0.5 * math.log(win) - 0.5 * math.log(1 - win) if tie else -math.log(win)
            else:
                nu = math.exp(log_nu.item())
                z = math.exp(d / 2) + math.exp(-d / 2) + nu
                loss = -math.log((nu if tie else math.exp(d / 2)) / z)
            slow += weight / len(pairs) * (loss + 0.01 * (a + b) ** 2)
        start += len(place)
    fast = preference_loss(
        scores, collate_comparisons([[Ranked(*one)] for one in rankings]), log_nu=log_nu, margin=0.1, centring=0.01
    )
    assert fast.item() == pytest.approx(slow, rel=1e-5)


def test_only_centring_sees_a_constant_added_to_every_score() -> None:
    batch = collate_comparisons([[Ranked([[0], [1, 2]])]])
    scores = torch.tensor([0.3, -0.2, 0.1])
    assert preference_loss(scores + 5, batch).item() == pytest.approx(preference_loss(scores, batch).item(), rel=1e-5)
    assert preference_loss(scores + 5, batch, centring=0.1) > preference_loss(scores, batch, centring=0.1) + 5


def test_a_tie_pulls_scores_together() -> None:
    scores = torch.tensor([1.0, -1.0], requires_grad=True)
    preference_loss(scores, collate_comparisons([[Ranked([[0, 1]])]])).backward()
    assert existing(scores.grad)[0] > 0 > existing(scores.grad)[1]


def test_half_precision_scores_are_compared_in_full_precision() -> None:
    batch = collate_comparisons([[Ranked([[0], [1]])]])
    assert preference_loss(torch.tensor([1.0, 0.5], dtype=torch.bfloat16), batch).dtype == torch.float32


def test_calibration_finds_the_temperature_that_made_the_outcomes() -> None:
    generator = torch.Generator().manual_seed(2)
    difference = torch.randn(20_000, generator=generator) * 4
    outcome = (torch.rand(20_000, generator=generator) < torch.sigmoid(difference / 2.5)).float()
    assert calibration_temperature(difference, outcome) == pytest.approx(2.5, rel=0.05)


def test_calibration_stays_in_bounds_where_every_comparison_is_right_or_wrong() -> None:
    assert calibration_temperature(torch.ones(5), torch.ones(5)) == pytest.approx(0.02)
    assert calibration_temperature(-torch.ones(5), torch.ones(5)) == pytest.approx(50)


def test_a_person_who_chooses_at_random_teaches_nothing() -> None:
    batch = collate_comparisons([[Ranked([[0], [1]], annotator=1), Ranked([[1], [0]], annotator=2)]])
    scores = torch.tensor([2.0, 0.0], requires_grad=True)
    loss = preference_loss(scores, batch, reliability=torch.tensor([1.0, 0.5, 0.0]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(2))
    (gradient,) = torch.autograd.grad(loss, scores)
    assert float(gradient[0]) == pytest.approx(-0.5 / (1 + math.exp(1)))
