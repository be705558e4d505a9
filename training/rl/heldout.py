"""How a policy does on prompts it never trains on: reward, KL and length by step, and the weights that did best. PPO
and GRPO share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from training.contract import OUTPUT, FrontierRow, SamplingSettings
from training.distributed.collectives import all_reduce_sum
from training.distributed.fsdp import full_tensor
from training.engine import Engine
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import CausalModel
from training.preferences.ensemble import disagreement
from training.preferences.rewards import find_shaping
from training.rl.actor import MicroBatch, rollout_batches, scatter, spare_batches
from training.rl.rollouts import (
    EncodedPrompt,
    Sampled,
    Scorer,
    correct_replies,
    reward_figures,
    sample_replies,
    score_replies,
    shaped,
)
from training.run.intervals import Interval, clustered_mean, clustered_share
from training.run.run import Run

FRONTIER: Final = "frontier.jsonl"
MAX_HELDOUT: Final = 256  # prompts per evaluation


@dataclass(frozen=True)
class ReplyKL:
    """KL(policy || reference) of whole replies. `reference` uses the reference's weights inside `as_reference()`."""

    policy: Forward
    reference: Forward
    compute: Compute
    pad_id: int
    budget: int  # tokens per forward pass
    as_reference: Callable[[], AbstractContextManager[object]] = nullcontext

    @torch.no_grad()
    def __call__(self, sampled: Sampled, temperature: float) -> list[float]:
        """For each reply the sum over its tokens of log p - log q at this temperature, in nats: an unbiased estimate if
        the replies were sampled at it."""
        batches = rollout_batches(
            sampled.prompt_ids, sampled.reply_ids, range(len(sampled.prompts)),
            budget=self.budget, pad=self.pad_id, device=self.compute.device,
            pads=not (self.policy.packs and self.reference.packs),
        )  # fmt: skip
        log_ratios = torch.zeros(len(sampled.prompts), max(map(len, sampled.reply_ids)))
        spares = spare_batches(
            self.reference, len(batches), sampled.prompt_ids, sampled.reply_ids,
            pad=self.pad_id, device=self.compute.device,
        )  # fmt: skip
        for batch in batches:
            with self.compute.autocast():
                p = read_batch(self.policy, batch, temperature)
                with self.as_reference():
                    q = read_batch(self.reference, batch, temperature)
            scatter(log_ratios, batch, p - q)
        for spare in spares:
            with self.compute.autocast():
                read_batch(self.reference, spare, temperature)
        all_reduce_sum([log_ratios])
        return log_ratios.sum(dim=1).tolist()


def read_batch(forward: Forward, batch: MicroBatch, temperature: float) -> Tensor:
    """The log-probabilities (M,) of the batch's reply tokens."""
    return forward.with_weights(
        lambda: (
            forward.read(forward.hidden(batch.packed)[batch.states], batch.targets, temperature=temperature).logprobs
        )
    )


Bounds = tuple[float, float, int]  # an interval's ends and its number of rows


@dataclass
class BestPolicy:
    """The policy's weights at its best held-out evaluation."""

    step: int = -1
    reward: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    interval: Bounds | None = None
    correct: Bounds | None = None


def bounds(interval: Interval) -> Bounds | None:
    """Low, high and number of rows, if there are enough of them for an interval."""
    return None if interval.low is None or interval.high is None else (interval.low, interval.high, interval.n)


@dataclass
class HeldoutEvaluator:
    """Evaluates the policy `model`, whose trainable weights are those that require gradients. Does nothing without
    prompts."""

    run: Run[Any]
    prompts: Sequence[EncodedPrompt]
    engine: Engine
    scorer: Scorer
    model: CausalModel
    kl: ReplyKL
    unsharded: Callable[[], AbstractContextManager[None]] = nullcontext  # inside it, `model` has its whole weights
    best: BestPolicy = field(default_factory=BestPolicy)
    figures: dict[str, float] = field(default_factory=dict)  # of the last evaluation, and heldout_reward_before
    history: list[dict[str, float]] = field(default_factory=list)  # the figures of every evaluation
    correct_before: Bounds | None = None

    def __post_init__(self) -> None:
        self.shaping = find_shaping(self.run.config.shaping, self.run.warn)
        self.prompts = self.prompts[:MAX_HELDOUT]

    def evaluate(self, step: int) -> None:
        """Measure the policy after `step` steps, with the same random numbers each time, and remember the best one."""
        if not self.prompts or (self.history and self.history[-1]["step"] == step):
            return
        sampling: SamplingSettings = self.run.config.sampling
        training = self.model.training
        self.model.eval()
        with self.run.timed("evaluation"), self.unsharded():
            completions = sample_replies(self.engine, self.prompts, sampling, (self.run.config.seed, "heldout"))
            sampled = Sampled(list(self.prompts), completions, *score_replies(self.scorer, self.prompts, completions))
            kl = self.kl(sampled, sampling.temperature)
        self.model.train(training)
        ids = [prompt.row.id for prompt in self.prompts]
        mean = clustered_mean(sampled.scores.tolist(), ids)
        correct = correct_replies(self.scorer, sampled.components)
        correct_share = None if correct is None else clustered_share(correct, ids)
        figures = {
            "heldout_reward": mean.value,
            "heldout_kl": sum(kl) / len(kl),
            "heldout_length": float(sampled.lengths.float().mean()),
            "heldout_ended": float(sampled.ended.float().mean()),
        }
        if (spread := disagreement(self.scorer)) is not None:
            figures["heldout_spread"] = spread
        figures |= reward_figures(sampled.components, "heldout_rewards/")
        if correct_share is not None:
            figures["heldout_correct"] = correct_share.value
        if self.shaping:
            figures["heldout_shaping"] = float(shaped(self.shaping, sampled).mean())
        self.history.append({"step": step, **figures})
        self.run.metric(step, figures)
        self.figures |= figures
        if step == 0:
            self.figures["heldout_reward_before"] = mean.value
            if correct_share is not None:
                self.figures["heldout_correct_before"] = correct_share.value
                self.correct_before = bounds(correct_share)
        elif mean.value > self.best.reward:
            self.best = BestPolicy(
                step, mean.value, self._copied_weights(), figures, bounds(mean), correct_share and bounds(correct_share)
            )

    def keep_best(self, step: int) -> int:
        """Give the policy, now after `step` steps, its best weights; returns the step they are from."""
        if self.best.step in (-1, step):
            return step
        last_reward = self.figures["heldout_reward"]
        with torch.no_grad():
            for name, weight in self._trainable():
                weight.copy_(self.best.weights[name])
        self.figures |= self.best.figures
        self.run.warn(
            f"the policy of step {self.best.step} is kept: its held-out reward, {self.best.reward:.3f}, is higher than "
            f"the last one, {last_reward:.3f}",
            step,
        )
        return self.best.step

    def write_frontier(self) -> None:
        """Write output/frontier.jsonl: the figures of each evaluation, and whether any other beats it."""
        if not self.history:
            return
        points = [(figures["heldout_kl"], figures["heldout_reward"]) for figures in self.history]
        rows = [
            FrontierRow(
                id=f"step:{figures['step']}",
                step=int(figures["step"]),
                kl=figures["heldout_kl"],
                reward=figures["heldout_reward"],
                length=figures["heldout_length"],
                ended=figures["heldout_ended"],
                on_frontier=unbeaten,
            )
            for figures, unbeaten in zip(self.history, frontier(points), strict=True)
        ]
        with self.run.writing(OUTPUT) as folder:
            (folder / FRONTIER).write_text("".join(row.model_dump_json() + "\n" for row in rows))

    @property
    def intervals(self) -> dict[str, Bounds]:
        named = {
            "heldout_reward": self.best.interval,
            "heldout_correct": self.best.correct,
            "heldout_correct_before": self.correct_before,
        }
        return {name: interval for name, interval in named.items() if interval}

    def _trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def _copied_weights(self) -> dict[str, Tensor]:
        return {name: full_tensor(weight.detach()).cpu().clone() for name, weight in self._trainable()}

    def state(self) -> dict[str, Any]:
        return {
            "best": vars(self.best),
            "figures": self.figures,
            "history": self.history,
            "correct_before": self.correct_before,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.best = BestPolicy(**state["best"])
        self.figures, self.history = state["figures"], state["history"]
        self.correct_before = state.get("correct_before")


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (kl, reward), whether it is on the frontier of reward against KL (Gao et al. 2022, arXiv:2210.10760): no
    other point has at least as much reward at no more KL."""
    return [not any(k <= kl and r >= reward and (k, r) != (kl, reward) for k, r in points) for kl, reward in points]
