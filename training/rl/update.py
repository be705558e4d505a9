"""One rollout: what each model thinks of it, and the optimiser steps taken on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.contract import PPOSettings
from training.data.packing import TextBatch
from training.distributed.collectives import add
from training.models.compute import Compute
from training.optim.loop import Learner, Means, Sums
from training.rl.actor import MicroBatch, rollout_batches
from training.rl.losses import Rollout, Trajectory, clipped_policy_loss, clipped_value_loss
from training.rl.policies import Policies
from training.rl.ptx import PretrainingMix
from training.rl.rollouts import Sampled, padded


class Pass(NamedTuple):
    """A micro-batch with, where they are known already, the policy's hidden states (M, H) at its reply tokens."""

    batch: MicroBatch
    hidden: Tensor | None = None


@dataclass(frozen=True)
class Updater:
    """Computes on rollouts with the policies, and learns from them."""

    config: PPOSettings
    policies: Policies
    learner: Learner
    compute: Compute
    pad_id: int

    def batches(self, sampled: Sampled, rows: Sequence[int], *, divided: bool = True) -> list[MicroBatch]:
        return rollout_batches(
            [prompt.ids for prompt in sampled.prompts],
            [completion.tokens for completion in sampled.completions],
            rows,
            budget=self.config.micro_tokens,
            pad=self.pad_id,
            device=self.compute.device,
            divided=divided,
        )

    def observe(self, sampled: Sampled, *, value_only: bool) -> tuple[Rollout, list[Pass]]:
        """The rollout with values and reference log-probabilities, and this process's share of the passes that computed
        them.

        Their hidden states are kept for the first pass of the update where that is no more than one micro-batch's
        worth of memory: with their graph, or without it where only the value is to learn. Where the model lies in
        parts a graph ends with the weights that were gathered for it, and nothing is kept.
        """
        batches = self.batches(sampled, range(len(sampled.prompts)))
        fits = sum(batch.tokens for batch in batches) <= self.config.micro_tokens
        keep = self.config.minibatches == 1 and fits and self.learner.root is None
        tokens = padded([completion.tokens for completion in sampled.completions], torch.long)
        logprobs = padded([completion.logprobs for completion in sampled.completions])
        tempered = self.config.sampling.temperature != 1
        if tempered:
            logprobs.zero_()
        reference, values = torch.zeros_like(logprobs), torch.zeros_like(logprobs)
        passes = []
        for batch in batches:
            with torch.set_grad_enabled(keep and not value_only), self.compute.autocast():
                hidden = self.policies.actor.hidden(batch)
            with torch.no_grad(), self.compute.autocast():
                put(values, batch, self.policies.actor.values(hidden))
                if tempered:
                    put(logprobs, batch, self.policies.actor.read(hidden, batch.targets)[0])
            put(reference, batch, self.reference_logprobs(batch))
            passes.append(Pass(batch, hidden if keep else None))
        add([reference, values, *([logprobs] if tempered else [])])
        mask = torch.arange(tokens.shape[1]) < sampled.lengths[:, None]
        return Rollout(tokens, mask, logprobs, reference, values, sampled.scores, sampled.ended), passes

    @torch.no_grad()
    def reference_logprobs(self, batch: MicroBatch) -> Tensor:
        """(M,)"""
        reference = self.policies.reference
        with self.policies.as_reference(), self.compute.autocast():
            return reference.read(reference.hidden(batch), batch.targets)[0]

    def update(
        self,
        sampled: Sampled,
        rollout: Rollout,
        learned: Trajectory,
        first: list[Pass],
        mix: PretrainingMix | None,
        *,
        step: int,
        done: float,
        value_only: bool,
    ) -> Means:
        """The optimiser steps on one rollout; returns the means of their figures."""
        config, figures = self.config, Means()
        old = [x.flatten().to(self.compute.device) for x in (rollout.logprobs, rollout.values, *learned[1:])]
        for turn, (epoch, rows) in enumerate(self._minibatches(len(sampled.prompts), step)):
            if config.minibatches > 1:
                micro = [Pass(batch) for batch in self.batches(sampled, rows)]
            elif epoch == 0 or value_only:
                micro = first
            else:
                micro = [Pass(one.batch) for one in first]
            scale = float(sampled.lengths[rows].sum())
            texts, text_tokens = ([], 0) if mix is None or value_only else mix.take()
            weight = config.ptx_weight * scale / max(1, text_tokens)

            def loss(one: Pass | TextBatch, weight: float = weight, unmoved: bool = turn == 0) -> Sums:
                if isinstance(one, TextBatch):
                    return self._text_loss(one, weight)
                return self._value_loss(one, old) if value_only else self._loss(one, old, unmoved)

            mixed: list[Pass | TextBatch] = [*micro, *texts]

            def spare(row: int = rows[0]) -> Pass:
                return Pass(self.batches(sampled, [row], divided=False)[0])

            told = self.learner.update(mixed, loss, scale, done, 1 / config.steps, spare)
            figures.add(told)
            if "policy/approxkl_avg" in told and config.update_kl_stop:
                moved, tokens = told["policy/approxkl_avg"]
                if moved / tokens > config.update_kl_stop:
                    figures.add({"val/stopped_early": (1, 1)})
                    break
        return figures

    def _minibatches(self, count: int, step: int) -> Iterator[tuple[int, list[int]]]:
        for epoch in range(self.config.epochs):
            order = np.random.default_rng((self.config.seed, step, epoch)).permutation(count)
            for rows in np.array_split(order, min(self.config.minibatches, count)):
                yield epoch, rows.tolist()

    def _loss(self, one: Pass, old: Sequence[Tensor], unmoved: bool) -> Sums:
        config, actor = self.config, self.policies.actor
        old_logprobs, old_values, advantages, returns = (x[one.batch.places] for x in old)
        hidden = actor.hidden(one.batch) if one.hidden is None else one.hidden
        measured = unmoved or bool(config.entropy_weight)
        logprobs, entropy = actor.read(hidden, one.batch.targets, entropy=measured)
        policy, clipped = clipped_policy_loss(logprobs, old_logprobs, advantages, config.clip)
        value, value_clipped = clipped_value_loss(actor.values(hidden), old_values, returns, config.value_clip)
        total = policy.sum() + config.value_weight * value.sum()
        if config.entropy_weight:
            total = total - config.entropy_weight * entropy.sum()
        count = len(logprobs)
        with torch.no_grad():
            log_ratio = logprobs - old_logprobs
            ratio = log_ratio.exp()
            sums: dict[str, tuple[Tensor | float, float]] = {
                "loss/policy_avg": (policy.sum(), count),
                "loss/value_avg": (value.sum(), count),
                "policy/approxkl_avg": (0.5 * log_ratio.square().sum(), count),
                "policy/clipfrac_avg": (clipped.sum(), count),
                "val/clipfrac_avg": (value_clipped.sum(), count),
                "val/ratio": (ratio.sum(), count),
                "val/ratio_squared": (ratio.square().sum(), count),
            }
            if measured:
                sums["policy/entropy_avg"] = (entropy.sum(), count)
            if unmoved:
                sums["val/rollout_gap"] = (log_ratio.abs().sum(), count)
        return {"loss": (total, count), **sums}

    def _value_loss(self, one: Pass, old: Sequence[Tensor]) -> Sums:
        """For the steps in which only the value head learns."""
        _, old_values, _, returns = (x[one.batch.places] for x in old)
        if one.hidden is None:
            with torch.no_grad():
                hidden = self.policies.actor.hidden(one.batch)
        else:
            hidden = one.hidden
        values = self.policies.actor.values(hidden)
        loss, clipped = clipped_value_loss(values, old_values, returns, self.config.value_clip)
        total = self.config.value_weight * loss.sum()
        return {
            "loss": (total, len(values)),
            "loss/value_avg": (loss.sum(), len(values)),
            "val/clipfrac_avg": (clipped.sum(), len(values)),
        }

    def _text_loss(self, batch: TextBatch, weight: float) -> Sums:
        """The language-model loss that keeps what pretraining taught (Ouyang et al. 2022, equation 2)."""
        losses = self.policies.actor.forward.losses(batch)
        # Nothing of the value head, but a gradient for it, as in the passes over replies that other processes compute
        # meanwhile: parts of a model are added up together, by all that have gradients.
        nothing = sum(0.0 * p.sum() for p in self.policies.actor.value_head.parameters())
        return {"loss": (weight * losses.sum() + nothing, len(losses)), "loss/ptx": (losses.sum(), len(losses))}


def put(table: Tensor, batch: MicroBatch, flat: Tensor) -> None:
    """Write flat values (M,) of a micro-batch to their places in a rollout's (N, T) on the CPU."""
    table.view(-1)[batch.places.cpu()] = flat.detach().float().cpu()
