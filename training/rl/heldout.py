"""How a policy that learns does on prompts that it never learns from: reward, KL and length by step, and the weights
that did best. PPO and GRPO share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from training.contract import OUTPUT, FrontierRow, SamplingSettings
from training.distributed.collectives import add
from training.distributed.fsdp import whole
from training.engine import Engine
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import CausalModel
from training.preferences.ensemble import disagreement
from training.preferences.reward_functions import find_shaping, shaping_of
from training.rl.actor import rollout_batches
from training.rl.rollouts import Prompt, Sampled, Scorer, sample_replies, score_replies
from training.rl.update import put
from training.run.intervals import clustered_mean
from training.run.run import Run

FRONTIER: Final = "frontier.jsonl"
MOST_HELDOUT: Final = 256  # prompts in one evaluation


@dataclass(frozen=True)
class Divergence:
    """KL(policy || reference) of replies. `reference` computes with the reference's weights inside `as_reference()`."""

    policy: Forward
    reference: Forward
    compute: Compute
    pad_id: int
    budget: int  # tokens in one pass
    as_reference: Callable[[], AbstractContextManager[object]] = nullcontext

    @torch.no_grad()
    def __call__(self, sampled: Sampled, temperature: float) -> list[float]:
        """For each reply the sum over its tokens of log p - log q at this temperature, nats: unbiased for replies that
        were sampled at it."""
        replies = [completion.tokens for completion in sampled.completions]
        batches = rollout_batches(
            [prompt.ids for prompt in sampled.prompts], replies, range(len(replies)),
            budget=self.budget, pad=self.pad_id, device=self.compute.device,
        )  # fmt: skip
        ratios = torch.zeros(len(replies), max(map(len, replies)))
        for batch in batches:
            with self.compute.autocast():
                p = self.policy.read(
                    self.policy.hidden(batch.packed)[batch.states], batch.targets, temperature=temperature
                )
                with self.as_reference():
                    q = self.reference.read(
                        self.reference.hidden(batch.packed)[batch.states], batch.targets, temperature=temperature
                    )
            put(ratios, batch, p.logprobs - q.logprobs)
        add([ratios])
        return ratios.sum(dim=1).tolist()


@dataclass
class Best:
    """The policy's weights when it did best on held-out prompts."""

    step: int = -1
    reward: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    interval: tuple[float, float, int] | None = None


@dataclass
class Heldout:
    """`model` is the policy, of which the weights that require gradients learn. Without prompts it does nothing."""

    run: Run[Any]
    prompts: Sequence[Prompt]
    engine: Engine
    scorer: Scorer
    model: CausalModel
    divergence: Divergence
    gathered: Callable[[], AbstractContextManager[None]] = nullcontext  # within it the model's weights are there whole
    best: Best = field(default_factory=Best)
    figures: dict[str, float] = field(default_factory=dict)  # the last evaluation's, and heldout_reward_before
    history: list[dict[str, float]] = field(default_factory=list)  # of every evaluation

    def __post_init__(self) -> None:
        self.prompts = self.prompts[:MOST_HELDOUT]

    def evaluate(self, step: int) -> None:
        """Reward, KL and length after `step` steps, with the same random numbers each time; remembers the best."""
        if not self.prompts or (self.history and self.history[-1]["step"] == step):
            return
        sampling: SamplingSettings = self.run.config.sampling
        training = self.model.training
        self.model.eval()
        with self.run.timed("evaluation"), self.gathered():
            completions = sample_replies(self.engine, self.prompts, sampling, (self.run.config.seed, "heldout"))
            scores = score_replies(self.scorer, self.prompts, completions)
            sampled = Sampled(list(self.prompts), completions, scores)
            kl = self.divergence(sampled, sampling.temperature)
        self.model.train(training)
        mean = clustered_mean(scores.tolist(), [prompt.row.id for prompt in self.prompts])
        figures = {
            "heldout_reward": mean.value,
            "heldout_kl": sum(kl) / len(kl),
            "heldout_length": float(sampled.lengths.float().mean()),
            "heldout_ended": float(sampled.ended.float().mean()),
        }
        if (spread := disagreement(self.scorer)) is not None:
            figures["heldout_spread"] = spread
        if shaping := find_shaping(self.run.config.shaping):
            figures["heldout_shaping"] = float(shaping_of(shaping, sampled.conversations, sampled.texts).mean())
        self.history.append({"step": step, **figures})
        self.run.metric(step, figures)
        self.figures |= figures
        if step == 0:
            self.figures["heldout_reward_before"] = mean.value
        elif mean.value > self.best.reward:
            interval = None if mean.low is None or mean.high is None else (mean.low, mean.high, mean.n)
            self.best = Best(step, mean.value, self._weights(copy=True), figures, interval)

    def keep_best(self, step: int) -> int:
        """Give the policy the weights that did best; the step they are of."""
        if self.best.step in (-1, step):
            return step
        last = self.figures["heldout_reward"]
        with torch.no_grad():
            for name, weight in self._weights().items():
                weight.copy_(self.best.weights[name])
        self.figures |= self.best.figures
        self.run.warn(
            f"the policy of step {self.best.step} is kept: its held-out reward, {self.best.reward:.3f}, is above the "
            f"last one's, {last:.3f}",
            step,
        )
        return self.best.step

    def write_frontier(self) -> None:
        """output/frontier.jsonl: what each evaluation found, and which of them nothing beats."""
        if not self.history:
            return
        best = frontier([(told["heldout_kl"], told["heldout_reward"]) for told in self.history])
        rows = [
            FrontierRow(
                id=f"step:{told['step']}",
                step=int(told["step"]),
                kl=told["heldout_kl"],
                reward=told["heldout_reward"],
                length=told["heldout_length"],
                ended=told["heldout_ended"],
                on_frontier=unbeaten,
            )
            for told, unbeaten in zip(self.history, best, strict=True)
        ]
        with self.run.writing(OUTPUT) as folder:
            (folder / FRONTIER).write_text("".join(row.model_dump_json() + "\n" for row in rows))

    @property
    def intervals(self) -> dict[str, tuple[float, float, int]]:
        return {"heldout_reward": self.best.interval} if self.best.interval else {}

    def _weights(self, *, copy: bool = False) -> dict[str, Tensor]:
        return {
            name: whole(p.detach()).cpu().clone() if copy else p
            for name, p in self.model.named_parameters()
            if p.requires_grad
        }

    def state(self) -> dict[str, Any]:
        return {"best": vars(self.best), "figures": self.figures, "history": self.history}

    def load(self, state: dict[str, Any]) -> None:
        self.best = Best(**state["best"])
        self.figures, self.history = state["figures"], state["history"]


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (kl, reward) whether no other has at least its reward at no more KL, and more or less of one: the
    frontier of Gao et al. 2022, arXiv:2210.10760, on which a policy buys reward with distance."""
    return [not any(k <= kl and r >= reward and (k, r) != (kl, reward) for k, r in points) for kl, reward in points]
