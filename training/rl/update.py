"""What PPO computes on a rollout: values and reference log-probabilities before the update, then the update's losses.

N replies of at most T tokens; M is the number of reply tokens in a micro-batch, H the hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.contract import PPOSettings
from training.data.packing import TextBatch
from training.distributed.collectives import all_reduce_sum
from training.optim.meters import Sums
from training.rl.actor import Actor, MicroBatch, rollout_batches, scatter, spare_batches
from training.rl.losses import Rollout, Trajectory, clipped_policy_loss, clipped_value_loss, update_kl
from training.rl.ppo_state import PPOState
from training.rl.rollouts import Sampled, pad_rows


class FlatRollout(NamedTuple):
    """What the losses compare with, flattened to (N * T,) on the device that computes."""

    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    @classmethod
    def of(cls, rollout: Rollout, learned: Trajectory, device: torch.device) -> FlatRollout:
        columns = (rollout.logprobs, rollout.values, learned.advantages, learned.returns)
        return cls(*(column.flatten().to(device) for column in columns))

    def at(self, flat_index: Tensor) -> FlatRollout:
        """(N * T,) -> (M,)"""
        return FlatRollout(*(column[flat_index] for column in self))


def rollout_micro_batches(ppo: PPOState, sampled: Sampled, rows: Sequence[int]) -> list[MicroBatch]:
    """This process's micro-batches of these rows."""
    return rollout_batches(
        sampled.prompt_ids, sampled.reply_ids, rows,
        budget=ppo.config.micro_tokens, pad=ppo.pad_id, device=ppo.compute.device,
        pads=not all(trunk.packs for trunk in ppo.policies.trunks),
    )  # fmt: skip


def evaluate_rollout(ppo: PPOState, sampled: Sampled, *, value_only: bool) -> tuple[Rollout, list[MicroBatch]]:
    """The rollout with its values and the reference's log-probabilities, and this process's micro-batches of it.

    If the whole rollout fits into one micro-batch's memory, the micro-batches keep their hidden states for the first
    pass of the update, with the graph unless only the value head learns. A sharded model keeps none, because a graph
    ends with the weights that were gathered for it.
    """
    config, actor = ppo.config, ppo.policies.actor
    batches = rollout_micro_batches(ppo, sampled, range(len(sampled.prompts)))
    fits = sum(map(actor.tokens, batches)) <= config.micro_tokens
    keep = config.minibatches == 1 and fits and ppo.learner.root is None
    tokens = pad_rows(sampled.reply_ids, torch.long)
    logprobs = pad_rows([completion.logprobs for completion in sampled.completions])
    reference, values = torch.zeros_like(logprobs), torch.zeros_like(logprobs)
    spares = spare_batches(
        ppo.policies.reference.forward, len(batches), sampled.prompt_ids, sampled.reply_ids,
        pad=ppo.pad_id, device=ppo.compute.device,
    )  # fmt: skip
    for i, batch in enumerate(batches):
        with torch.set_grad_enabled(keep and not value_only), ppo.compute.autocast():
            hidden = actor.hidden(batch)
        with torch.no_grad(), ppo.compute.autocast():
            scatter(values, batch, actor.estimate(batch, hidden))
        scatter(reference, batch, reference_logprobs(ppo, batch))
        if keep:
            batches[i] = batch._replace(hidden=hidden)
    for spare in spares:
        reference_logprobs(ppo, spare)
    all_reduce_sum([reference, values])
    mask = torch.arange(tokens.shape[1]) < sampled.lengths[:, None]
    return Rollout(tokens, mask, logprobs, reference, values, sampled.scores, sampled.ended), batches


@torch.no_grad()
def reference_logprobs(ppo: PPOState, batch: MicroBatch) -> Tensor:
    """(M,)"""
    reference = ppo.policies.reference
    with ppo.policies.as_reference(), ppo.compute.autocast():
        return reference.forward.with_weights(lambda: reference.read(reference.hidden(batch), batch.targets).logprobs)


def minibatches(count: int, step: int, config: PPOSettings) -> Iterator[tuple[int, list[int]]]:
    """The epoch and the rows of each optimizer step on a rollout of `count` replies: every epoch in an order of its
    own."""
    for epoch in range(config.epochs):
        order = np.random.default_rng((config.seed, step, epoch)).permutation(count)
        for rows in np.array_split(order, min(config.minibatches, count)):
            yield epoch, rows.tolist()


def update_loss(
    actor: Actor,
    config: PPOSettings,
    old: FlatRollout,
    batch: MicroBatch | TextBatch,
    *,
    value_only: bool = False,
    is_first: bool = False,
    text_weight: float = 0.0,
) -> Sums:
    """The loss of one micro-batch, of replies or of pretraining text; `is_first`: of the rollout's first optimizer
    step."""
    if isinstance(batch, TextBatch):
        return pretraining_loss(actor, batch, text_weight)
    if value_only:
        return value_loss(actor, config, old, batch)
    return policy_and_value_loss(actor, config, old, batch, is_first=is_first)


def policy_and_value_loss(
    actor: Actor, config: PPOSettings, old: FlatRollout, batch: MicroBatch, *, is_first: bool
) -> Sums:
    """The clipped losses of Schulman et al. 2017, arXiv:1707.06347, equation 9, and figures on the update. The first
    optimizer step also measures how far the rollout's log-probabilities are from those computed here."""
    old = old.at(batch.flat_index)
    hidden = actor.hidden(batch) if batch.hidden is None else batch.hidden
    measured = is_first or bool(config.entropy_weight)
    logprobs, entropy = actor.read(hidden, batch.targets, entropy=measured)
    policy, clipped = clipped_policy_loss(logprobs, old.logprobs, old.advantages, config.clip)
    value, value_clipped = clipped_value_loss(actor.estimate(batch, hidden), old.values, old.returns, config.value_clip)
    total = policy.sum() + config.value_weight * value.sum()
    if config.entropy_weight:
        total = total - config.entropy_weight * entropy.sum()
    count = len(logprobs)
    with torch.no_grad():
        log_ratio = logprobs - old.logprobs
        ratio = log_ratio.exp()
        sums: dict[str, tuple[Tensor | float, float]] = {
            "loss": (total, count),
            "loss/policy_avg": (policy.sum(), count),
            "loss/value_avg": (value.sum(), count),
            "policy/approxkl_avg": (update_kl(logprobs, old.logprobs).sum(), count),
            "policy/clipfrac_avg": (clipped.sum(), count),
            "val/clipfrac_avg": (value_clipped.sum(), count),
            "val/ratio": (ratio.sum(), count),
            "val/ratio_squared": (ratio.square().sum(), count),
        }
        if measured:
            sums["policy/entropy_avg"] = (entropy.sum(), count)
        if is_first:
            sums["val/rollout_gap"] = (log_ratio.abs().sum(), count)
    return sums


def value_loss(actor: Actor, config: PPOSettings, old: FlatRollout, batch: MicroBatch) -> Sums:
    """For the steps in which only the value head learns."""
    old = old.at(batch.flat_index)
    if actor.critic is not None:
        values = actor.critic(batch.packed, batch.states)
    else:
        with torch.no_grad():
            hidden = actor.hidden(batch) if batch.hidden is None else batch.hidden
        values = actor.values(hidden)
    loss, clipped = clipped_value_loss(values, old.values, old.returns, config.value_clip)
    return {
        "loss": (config.value_weight * loss.sum(), len(values)),
        "loss/value_avg": (loss.sum(), len(values)),
        "val/clipfrac_avg": (clipped.sum(), len(values)),
    }


def pretraining_loss(actor: Actor, batch: TextBatch, weight: float) -> Sums:
    """The language-model loss that keeps what pretraining taught (Ouyang et al. 2022, equation 2)."""
    losses = actor.forward.losses(batch)
    # The value head takes no part, but needs a gradient of zero: with a sharded model all ranks add up the same
    # gradients, and other ranks may compute on replies meanwhile.
    nothing = sum(0.0 * p.sum() for p in actor.value_module.parameters() if p.requires_grad)
    return {"loss": (weight * losses.sum() + nothing, len(losses)), "loss/ptx": (losses.sum(), len(losses))}


def moved_too_far(sums: Sums, limit: float) -> bool:
    """Whether an optimizer step's mean update KL is above the limit, in nats per token; 0 is no limit."""
    if not limit or "policy/approxkl_avg" not in sums:
        return False
    total, tokens = sums["policy/approxkl_avg"]
    return float(total) / tokens > limit
