from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.narrowing import existing
from training.rl.losses import (
    KLController,
    Rollout,
    RunningMoments,
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    last_index,
    masked_mean,
    masked_whiten,
    shaped_scores,
    token_kl,
    token_rewards,
    trajectory,
    update_kl,
)


def ragged(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_masked_mean_leaves_padding_out() -> None:
    x, mask = torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[True, True, False]])
    assert masked_mean(x, mask).item() == 2
    assert masked_mean(x, torch.zeros_like(mask)).item() == 0


def test_whitened_values_have_mean_zero_and_deviation_one_over_the_mask(generator: Any) -> None:
    x, mask = torch.randn(4, 6, generator=generator) * 3 + 7, ragged([6, 1, 3, 4], 6)
    white = masked_whiten(x, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert white[mask].std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert white[~mask].abs().max() == 0
    assert masked_whiten(x, mask, center=False)[mask].mean().item() == pytest.approx(x[mask].mean().item(), rel=1e-5)


def test_whitening_what_does_not_vary_gives_zeros_and_no_nan() -> None:
    assert masked_whiten(torch.full((2, 2), 5.0), torch.ones(2, 2, dtype=torch.bool)).abs().max() == 0
    assert masked_whiten(torch.full((1, 1), 5.0), torch.ones(1, 1, dtype=torch.bool)).item() == 0


def test_the_last_token_is_found_behind_any_padding() -> None:
    assert last_index(ragged([3, 1, 0], 4)).tolist() == [2, 0, 0]


def test_k1_and_k3_give_the_figures_worked_out_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.5]).log()
    assert token_kl(p, q, "k1").tolist() == pytest.approx([math.log(2), -math.log(2)])
    assert token_kl(p, q, "k3").tolist() == pytest.approx([0.5 - 1 + math.log(2), 2 - 1 - math.log(2)])


def test_both_estimators_have_the_exact_kl_as_their_mean(generator: Any) -> None:
    p = torch.randn(50, generator=generator).log_softmax(0)
    q = (p + 0.3 * torch.randn(50, generator=generator)).log_softmax(0)
    exact = (p.exp() * (p - q)).sum().item()
    for estimator in ("k1", "k3"):
        assert (p.exp() * token_kl(p, q, estimator)).sum().item() == pytest.approx(exact, abs=1e-6)
    assert token_kl(p, q, "k3").min() >= 0


def test_penalties_are_for_replies_without_an_end_and_for_length() -> None:
    shaped = shaped_scores(
        torch.tensor([1.0, 1.0]), torch.tensor([True, False]), torch.tensor([50, 200]),
        no_end_penalty=0.7, length_penalty=0.1,
    )  # fmt: skip
    assert shaped.tolist() == pytest.approx([1 - 0.05, 1 - 0.7 - 0.2])


def test_the_score_lands_on_the_end_of_text_token() -> None:
    rewards = token_rewards(torch.tensor([2.0, -1.0]), torch.full((2, 3), 0.5), ragged([3, 1], 3), 0.1)
    assert rewards.flatten().tolist() == pytest.approx([-0.05, -0.05, 1.95, -1.05, 0, 0])


def test_a_row_without_tokens_is_given_nothing() -> None:
    assert token_rewards(torch.tensor([2.0]), torch.ones(1, 2), ragged([0], 2), 0.1).abs().max() == 0


def test_gae_gives_the_figures_worked_out_by_hand() -> None:
    # gamma 0.5, lambda 0.5. deltas: 1 + 0.5*4 - 2 = 1; 0 + 0.5*6 - 4 = -1; 8 - 6 = 2
    # advantages from the end: 2; -1 + 0.25*2 = -0.5; 1 + 0.25*-0.5 = 0.875
    advantages, returns = gae(
        torch.tensor([[1.0, 0.0, 8.0]]), torch.tensor([[2.0, 4.0, 6.0]]), ragged([3], 3), gamma=0.5, gae_lambda=0.5
    )
    assert advantages.flatten().tolist() == pytest.approx([0.875, -0.5, 2])
    assert returns.flatten().tolist() == pytest.approx([2.875, 3.5, 8])


def test_gae_on_ragged_replies_matches_the_double_sum_of_each_reply_alone(generator: Any) -> None:
    lengths, gamma, lam = [5, 1, 3], 0.9, 0.8
    mask = ragged(lengths, 5)
    rewards, values = torch.randn(3, 5, generator=generator), torch.randn(3, 5, generator=generator)
    advantages, returns = gae(rewards, values, mask, gamma=gamma, gae_lambda=lam)
    for n, length in enumerate(lengths):
        v = [*values[n, :length].tolist(), 0.0]
        delta = [rewards[n, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
        slow = [sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, length)) for t in range(length)]
        assert advantages[n, :length].tolist() == pytest.approx(slow, abs=1e-5)
        assert returns[n, :length].tolist() == pytest.approx([a + b for a, b in zip(slow, v, strict=False)], abs=1e-5)
    assert advantages[~mask].abs().max() == 0
    assert returns[~mask].abs().max() == 0


def test_gae_with_lambda_one_is_the_return_less_the_value(generator: Any) -> None:
    rewards, values = torch.randn(2, 4, generator=generator), torch.randn(2, 4, generator=generator)
    _, returns = gae(rewards, values, ragged([4, 4], 4), gamma=1, gae_lambda=1)
    assert torch.allclose(returns, rewards.flip(1).cumsum(1).flip(1), atol=1e-5)


def test_the_policy_loss_is_clipped_only_where_that_makes_it_worse() -> None:
    old = torch.zeros(4)
    new = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()
    loss, clipped = clipped_policy_loss(new, old, torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2)
    assert loss.tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8])
    assert clipped.tolist() == [True, False, False, True]


def test_the_first_pass_has_the_policy_gradient() -> None:
    new = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, _ = clipped_policy_loss(new, new.detach(), torch.tensor([3.0, -0.5]), 0.2)
    loss.sum().backward()
    assert existing(new.grad).tolist() == pytest.approx([-3.0, 0.5])


def test_clipped_tokens_give_no_gradient() -> None:
    new = torch.tensor([math.log(1.5)], requires_grad=True)
    clipped_policy_loss(new, torch.zeros(1), torch.ones(1), 0.2)[0].sum().backward()
    assert existing(new.grad).item() == 0


def test_the_value_loss_gives_the_figures_worked_out_by_hand() -> None:
    new, old, returns = torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([1.0, 1.0])
    loss, clipped = clipped_value_loss(new, old, returns, 0.2)
    assert loss.tolist() == pytest.approx([0.5 * 0.8**2, 0.5 * 0.9**2])
    assert clipped.tolist() == [True, False]
    loss, clipped = clipped_value_loss(new, old, returns, 0)
    assert loss.tolist() == pytest.approx([0, 0.5 * 0.9**2])
    assert not clipped.any()


def test_the_update_kl_is_zero_for_an_unmoved_policy() -> None:
    assert update_kl(torch.ones(3), torch.ones(3)).mean().item() == 0
    assert update_kl(torch.tensor([0.2, -0.4]), torch.zeros(2)).mean().item() == pytest.approx((0.02 + 0.08) / 2)


def test_an_adaptive_coefficient_moves_toward_its_target_by_bounded_steps() -> None:
    controller = KLController(0.1, target=5, horizon=1000)
    controller.update(50, 100)
    assert controller.coefficient == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    controller.update(0, 100)
    assert controller.coefficient == pytest.approx(0.1 * 1.02 * 0.98)
    controller.update(5.5, 100)
    assert controller.coefficient == pytest.approx(0.1 * 1.02 * 0.98 * 1.01)


def test_a_fixed_coefficient_stays() -> None:
    controller = KLController(0.1)
    controller.update(50, 100)
    assert controller.coefficient == 0.1


def test_the_running_deviation_is_that_of_all_scores_seen(generator: Any) -> None:
    scores, running = torch.randn(100, generator=generator) * 3 + 10, RunningMoments()
    for part in scores.split([1, 49, 50]):
        running.update(part)
    assert running.scale == pytest.approx(scores.std().item(), rel=1e-5)
    assert running.mean == pytest.approx(scores.mean().item(), rel=1e-5)


def test_scores_that_never_vary_are_not_blown_up() -> None:
    running = RunningMoments()
    running.update(torch.full((8,), 3.3))
    assert running.scale == 1
    assert running.normalize(torch.tensor([3.3, 4.3]), 5).tolist() == pytest.approx([0, 1], abs=1e-5)


def test_normalized_scores_are_clipped_around_their_mean() -> None:
    running = RunningMoments()
    running.update(torch.tensor([99.0, 100.0, 101.0]))
    scores = torch.tensor([100.0, 101.0, 900.0])
    assert running.normalize(scores, 5).tolist() == pytest.approx([0, 1, 5])
    assert running.normalize(scores, 0).tolist() == pytest.approx([0, 1, 800])


def test_a_trajectory_puts_the_pieces_together(generator: Any) -> None:
    mask = ragged([3, 2], 3)
    logprobs, reference, values = (torch.randn(2, 3, generator=generator) * mask for _ in range(3))
    rollout = Rollout(
        torch.zeros(2, 3, dtype=torch.long), mask, logprobs, reference, values, torch.zeros(2), torch.ones(2).bool()
    )
    options: Any = {"kl_coefficient": 0.1, "kl_estimator": "k1", "gamma": 1.0, "gae_lambda": 0.95}
    found = trajectory(rollout, torch.tensor([1.0, -2.0]), whiten=False, **options)
    assert found.rewards[0].sum().item() == pytest.approx(1 - 0.1 * (logprobs - reference)[0].sum().item(), abs=1e-6)
    assert torch.allclose(found.returns, found.advantages + values, atol=1e-6)
    white = trajectory(rollout, torch.tensor([1.0, -2.0]), whiten=True, **options)
    assert torch.allclose(white.advantages, masked_whiten(found.advantages, mask), atol=1e-6)
    assert torch.equal(white.returns, found.returns)
