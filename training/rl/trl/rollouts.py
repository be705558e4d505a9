"""The replies that GRPO learns from: sampled by our engine, scored by our rewards, handed to TRL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor
from trl import GRPOTrainer

from training.contract import GRPOSettings
from training.distributed.launch import rank, world_size
from training.engine import Completion, Engine
from training.preferences.rewards import find_shaping
from training.rl.heldout import ReplyKL
from training.rl.rollouts import (
    EncodedPrompt,
    Sampled,
    Scorer,
    prompts_of_step,
    reward_figures,
    sample_replies,
    score_replies,
    shaped,
)
from training.run.run import Run

T = TypeVar("T")
SAMPLES: Final = 50  # samples logged over a whole run, about
EQUAL: Final = 1e-6  # rewards of a group that differ by less teach nothing
SPARE: Final = 1  # tells the order of spare prompts from others


class TRLRollouts:
    """TRL's rollout function: gives each process its share of a step's replies, in the order in which TRL gathers the
    shares, with their log-probabilities and scores. It ignores the prompts that TRL passes and chooses them as PPO
    does, so that a resumed run sees the same ones. `kl`: from where the policy began, where the rewards are less a
    penalty for it."""

    def __init__(
        self, run: Run[GRPOSettings], engine: Engine, scorer: Scorer, prompts: Sequence[EncodedPrompt]
    ) -> None:
        self.run, self.engine, self.scorer, self.prompts, self.config = run, engine, scorer, prompts, run.config
        self.shaping = find_shaping(run.config.shaping, run.warn)
        self.kl: ReplyKL | None = None
        self.figures: dict[str, float] = {}  # of the latest replies

    def __call__(self, _: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        config = self.config
        step = trainer.state.global_step // updates_per_step(config)
        chosen = prompts_of_step(len(self.prompts), step, config.prompts_per_step, config.seed)
        sampled = self.sample(chosen, (config.seed, "grpo", step))
        figures: dict[str, float] = {}
        if config.dynamic_sampling:
            sampled, figures = self.replace_equal_groups(sampled, chosen, step)
        scores = self.rewards(sampled)
        self.figures = reply_figures(sampled.completions)
        if self.kl is not None:
            penalties, self.figures["token_kl"] = self.penalties(trainer, sampled, self.kl)
            scores, figures["kl"] = scores - penalties, self.figures["token_kl"]
        self.report(step + 1, sampled, figures)
        share = len(sampled.prompts) // world_size()
        local = slice(rank() * share, (rank() + 1) * share)
        return {
            "prompt_ids": [prompt.ids for prompt in sampled.prompts[local]],
            "completion_ids": [completion.tokens for completion in sampled.completions[local]],
            "logprobs": [completion.logprobs for completion in sampled.completions[local]],
            "score": scores[local].tolist(),
        }

    def sample(self, chosen: Sequence[int], seed: Sequence[int | str]) -> Sampled:
        """A group of scored replies to each of these prompts, group after group."""
        prompts = [self.prompts[i] for i in chosen for _ in range(self.config.samples_per_prompt)]
        completions = sample_replies(self.engine, prompts, self.config.sampling, seed)
        with self.run.timed("score"):
            return Sampled(prompts, completions, *score_replies(self.scorer, prompts, completions))

    def rewards(self, sampled: Sampled) -> Tensor:
        """(N,): what is learned from."""
        return sampled.scores + shaped(self.shaping, sampled)

    def replace_equal_groups(
        self, sampled: Sampled, chosen: Sequence[int], step: int
    ) -> tuple[Sampled, dict[str, float]]:
        """Dynamic sampling (Yu et al. 2025, arXiv:2503.14476, section 3.2): groups whose rewards are all equal give way
        to those of prompts that this step has not seen, round after round. Also returns how many groups were replaced,
        and how many are left that teach nothing."""
        config, size = self.config, self.config.samples_per_prompt
        spare = iter(spare_prompts(len(self.prompts), chosen, step, config.seed))
        replaced = 0
        for attempt in range(config.dynamic_sampling):
            exchanges = list(zip(equal_groups(self.rewards(sampled), size), spare))  # noqa: B905 - as far as both reach
            if not exchanges:
                break
            fresh = self.sample([prompt for _, prompt in exchanges], (config.seed, "grpo", step, attempt + 1))
            for i, (group, _) in enumerate(exchanges):
                sampled = with_group(sampled, group, fresh, i, size)
            replaced += len(exchanges)
        remaining = len(equal_groups(self.rewards(sampled), size))
        return sampled, {"dynamic/replaced": float(replaced), "dynamic/equal": float(remaining)}

    def penalties(self, trainer: GRPOTrainer, sampled: Sampled, reply_kl: ReplyKL) -> tuple[Tensor, float]:
        """(N,): beta times the KL of each whole reply from where the policy began; and its mean in nats per token."""
        model = trainer.model
        training = model.training
        model.eval()
        kl = torch.tensor(reply_kl(sampled, self.config.sampling.temperature))
        model.train(training)
        return self.config.beta * kl, float(kl.sum() / sampled.lengths.sum())

    def report(self, step: int, sampled: Sampled, figures: dict[str, float]) -> None:
        """Log the mean of each of several rewards and, now and then, one of the replies."""
        config = self.config
        if (step % config.log_every == 0 or step == config.steps) and (
            figures := reward_figures(sampled.components, "rewards/") | figures
        ):
            self.run.metric(step, figures)
        if step % max(1, config.steps // SAMPLES) == 0 or step == 1:
            i = step % len(sampled.prompts)
            row, scored = sampled.rows[i], sampled.components[i]
            self.run.sample(
                step, row.messages[-1].content, sampled.texts[i], scored.score, scored.named(), row.reference
            )


def updates_per_step(config: GRPOSettings) -> int:
    return config.epochs * config.minibatches


def equal_groups(rewards: Tensor, size: int) -> list[int]:
    """The groups of `size` neighbors in (N,) whose rewards do not differ."""
    groups = rewards.view(-1, size)
    return torch.nonzero(groups.amax(dim=1) - groups.amin(dim=1) < EQUAL).flatten().tolist()


def spare_prompts(count: int, chosen: Sequence[int], step: int, seed: int) -> list[int]:
    """All of `count` prompts but those of this step, in an order that depends on nothing but the arguments."""
    order = np.random.default_rng((seed, step, SPARE)).permutation(count).tolist()
    taken = set(chosen)
    return [i for i in order if i not in taken]


def with_group(sampled: Sampled, group: int, fresh: Sampled, fresh_group: int, size: int) -> Sampled:
    """`sampled` with one of its groups replaced by one of `fresh`."""
    old, new = slice(group * size, (group + 1) * size), slice(fresh_group * size, (fresh_group + 1) * size)

    def exchanged(column: Sequence[T], fresh_column: Sequence[T]) -> list[T]:
        return [*column[: old.start], *fresh_column[new], *column[old.stop :]]

    return Sampled(
        exchanged(sampled.prompts, fresh.prompts),
        exchanged(sampled.completions, fresh.completions),
        torch.cat([sampled.scores[: old.start], fresh.scores[new], sampled.scores[old.stop :]]),
        exchanged(sampled.components, fresh.components),
    )


def reply_figures(completions: Sequence[Completion]) -> dict[str, float]:
    """An estimate of the entropy in nats per token, the mean length in tokens, and the share of replies that ended."""
    tokens = sum(len(completion.tokens) for completion in completions)
    return {
        "entropy": -sum(sum(completion.logprobs) for completion in completions) / tokens,
        "length": tokens / len(completions),
        "ended": sum(completion.finish == "stop" for completion in completions) / len(completions),
    }
