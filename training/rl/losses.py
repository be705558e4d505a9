"""The mathematics of PPO from human feedback, as pure functions over tensors.

Shapes: N replies in a rollout, padded on the right to T tokens; `mask` (N, T) is true on the reply's tokens, its
end-of-text token included. Padding holds zeros. A flat argument (M,) holds only the tokens that count. Logarithms are
natural, so KL and entropy are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Rollout(NamedTuple):
    """What was sampled, and what each model thought of it; fixed while the policy is updated on it."""

    tokens: Tensor  # (N, T) long
    mask: Tensor  # (N, T) bool
    logprobs: Tensor  # (N, T) of the policy that sampled
    reference: Tensor  # (N, T) of the reference policy
    values: Tensor  # (N, T) value of the state before each token
    scores: Tensor  # (N,) from the reward model or function, as it gave them
    ended: Tensor  # (N,) bool, false if a reply was cut at its length limit


class Trajectory(NamedTuple):
    """What the update learns from."""

    rewards: Tensor  # (N, T)
    advantages: Tensor  # (N, T)
    returns: Tensor  # (N, T)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x over mask, of one shape -> (); 0 if the mask is empty."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def masked_whiten(x: Tensor, mask: Tensor, *, center: bool = True) -> Tensor:
    """x scaled to deviation 1 over mask, and to mean 0 unless `center` is false; zeros elsewhere. Same shape.

    Where x does not vary it only loses its mean: the deviation is bounded from below.
    """
    mean = masked_mean(x, mask)
    white = (x - mean) * torch.rsqrt(masked_mean((x - mean).square(), mask) + 1e-8)
    return (white if center else white + mean) * mask


def last_index(mask: Tensor) -> Tensor:
    """The position of each reply's last token, (N, T) -> (N,); 0 for a reply without any."""
    return (mask.sum(dim=1) - 1).clamp(min=0)


def token_kl(logprobs: Tensor, reference: Tensor, estimator: Literal["k1", "k3"] = "k1") -> Tensor:
    """Each token's estimate of KL(policy || reference), same shape as the inputs.

    k1 = log(p/q) is unbiased and may be negative; k3 = q/p - 1 + log(p/q) is unbiased, never negative, and varies less
    while the two are close. Schulman 2020, "Approximating KL divergence".
    """
    log_ratio = logprobs - reference
    return log_ratio if estimator == "k1" else torch.expm1(-log_ratio) + log_ratio


def shaped_scores(
    scores: Tensor, ended: Tensor, lengths: Tensor, *, no_end_penalty: float, length_penalty: float
) -> Tensor:
    """Scores less the penalties for a reply that did not end and for each 100 tokens. All (N,)."""
    return scores - no_end_penalty * (~ended).to(scores) - length_penalty * lengths.to(scores) / 100


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """-coefficient * kl on every token, and the score on the last one, which is the end-of-text token where there is
    one. scores (N,), kl and mask (N, T) -> (N, T). Ziegler et al. 2019, arXiv:1909.08593, equation 2."""
    rewards = -coefficient * kl * mask
    rows = torch.arange(len(scores), device=scores.device)
    rewards[rows, last_index(mask)] += scores * mask.any(dim=1)
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns, all (N, T). Schulman et al. 2015, arXiv:1506.02438, equation 16; the state after the last
    token is terminal and worth nothing."""
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = delta + gamma * gae_lambda * following
        next_value = values[:, t]
        advantages[:, t] = following
    return advantages, advantages + values


def clipped_policy_loss(new: Tensor, old: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Loss and whether it was clipped, for each token: (M,) -> (M,), (M,) bool. Schulman et al. 2017, arXiv:1707.06347,
    equation 7, with the sign turned."""
    ratio = torch.exp(new - old)
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(free, bounded), bounded > free


def clipped_value_loss(new: Tensor, old: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Half the squared error, at least as large as with the value held within `clip` of the old one (0: no clipping),
    and whether it was clipped: (M,) -> (M,), (M,) bool. Baselines' ppo2 (2017), as in arXiv:1909.08593's code."""
    free = (new - returns).square()
    if clip == 0:
        return 0.5 * free, torch.zeros_like(free, dtype=torch.bool)
    bounded = (torch.clamp(new, old - clip, old + clip) - returns).square()
    return 0.5 * torch.maximum(free, bounded), bounded > free


def update_kl(new: Tensor, old: Tensor) -> Tensor:
    """How far an update has moved the policy on each token, in nats: (log ratio)^2 / 2, (M,) -> (M,)."""
    return 0.5 * (new - old).square()


@dataclass
class KLController:
    """The weight of the KL penalty: fixed, or moved in proportion to how far the measured KL is from the target
    (Ziegler et al. 2019, arXiv:1909.08593, section 2.2)."""

    coefficient: float
    target: float = 0.0  # nats a reply; 0 keeps the coefficient
    horizon: int = 2000  # episodes

    def update(self, kl: float, episodes: int) -> None:
        if self.target > 0:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * episodes / self.horizon


@dataclass
class RunningMoments:
    """Mean and standard deviation of everything seen so far (Chan et al. 1979, the parallel update)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean

    def update(self, x: Tensor) -> None:
        """Takes in x (N,)."""
        x = x.double()
        delta, total = float(x.mean()) - self.mean, self.count + len(x)
        self.squares += float((x - x.mean()).square().sum()) + delta**2 * self.count * len(x) / total
        self.mean += delta * len(x) / total
        self.count = total

    def normalize(self, x: Tensor, clip: float) -> Tensor:
        """x (N,) less the mean, over the deviation, held to [-clip, clip]; 0: not held."""
        white = (x - self.mean) / self.scale
        return white.clamp(-clip, clip) if clip else white

    @property
    def scale(self) -> float:
        """What to divide by: the deviation, or 1 while everything seen was equal."""
        deviation = (self.squares / max(self.count - 1, 1)) ** 0.5
        return deviation if deviation > 1e-6 * max(1.0, abs(self.mean)) else 1.0


def trajectory(
    rollout: Rollout,
    scores: Tensor,
    *,
    kl_coefficient: float,
    kl_estimator: Literal["k1", "k3"],
    gamma: float,
    gae_lambda: float,
    whiten: bool,
) -> Trajectory:
    """Rewards, advantages and returns of a rollout; `scores` (N,) are the shaped and normalized ones."""
    kl = token_kl(rollout.logprobs, rollout.reference, kl_estimator)
    rewards = token_rewards(scores, kl, rollout.mask, kl_coefficient)
    advantages, returns = gae(rewards, rollout.values, rollout.mask, gamma=gamma, gae_lambda=gae_lambda)
    if whiten:
        advantages = masked_whiten(advantages, rollout.mask)
    return Trajectory(rewards, advantages, returns)
