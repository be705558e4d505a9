"""The state of a PPO run: it takes a step, evaluates on held-out prompts, and can be saved and gone on with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from training.contract import PPOSettings
from training.engine import Engine
from training.preferences.ensemble import disagreement
from training.preferences.reward_functions import find_shaping, shaping_of
from training.rl.early_stop import Watch
from training.rl.heldout import Divergence, Heldout
from training.rl.losses import (
    KLController,
    Rollout,
    RunningMoments,
    Trajectory,
    masked_mean,
    shaped_scores,
    token_kl,
    trajectory,
)
from training.rl.ptx import PretrainingMix
from training.rl.rollouts import Prompt, Sampled, Scorer, prompts_of_step, sample_replies, score_replies
from training.rl.update import Updater
from training.run.run import Run

SHOWN: Final = 50  # samples told over a run, about
MOST_GAP: Final = {torch.float32: 0.01, torch.bfloat16: 0.1}  # nats a token between rollout and update


@dataclass
class Trainer:
    run: Run[PPOSettings]
    prompts: Sequence[Prompt]
    heldout: Sequence[Prompt]
    engine: Engine
    scorer: Scorer
    updater: Updater
    mix: PretrainingMix | None = None
    stopped: str = ""  # what has gone wrong

    def __post_init__(self) -> None:
        config = self.run.config
        self.config = config
        self.kl = KLController(config.kl_coefficient, config.kl_target, config.kl_horizon)
        self.moments = RunningMoments()
        self.shaping = find_shaping(config.shaping)
        self.watch = Watch(kl_matters=config.kl_coefficient > 0, cap=config.sampling.max_new_tokens)
        updater, policies = self.updater, self.updater.policies
        divergence = Divergence(
            policies.actor.forward, policies.reference.forward, updater.compute, updater.pad_id, config.micro_tokens,
            policies.as_reference,
        )  # fmt: skip
        self.held = Heldout(
            self.run,
            self.heldout,
            self.engine,
            self.scorer,
            policies.actor.model,
            divergence,
            self.updater.learner.whole,
        )
        self.episodes = 0
        self.figures: dict[str, float] = {}
        self._warned: set[str] = set()

    # ---------------------------------------------------------------------------------------------------------- a step

    def step(self, step: int, done: float) -> None:
        """Sample, score, learn, tell."""
        config, began = self.config, time.perf_counter()
        value_only = step < config.value_warmup
        with self.run.timed("rollout"), self.updater.learner.whole():
            sampled = self.sample(step)
        scored = time.perf_counter()
        with self.run.timed("score"):
            sampled = sampled._replace(scores=score_replies(self.scorer, sampled.prompts, sampled.completions))
            spread = disagreement(self.scorer)
        observed = time.perf_counter()
        with self.run.timed("update"):
            with self.updater.learner.whole():
                rollout, passes = self.updater.observe(sampled, value_only=value_only)
            shaping = shaping_of(self.shaping, sampled.conversations, sampled.texts)
            scores = self.shape(rollout, sampled.lengths) + shaping
            learned = self.advantages(rollout, scores)
            means = self.updater.update(
                sampled, rollout, learned, passes, self.mix, step=step, done=done, value_only=value_only
            ).values()
        ended = time.perf_counter()
        self.episodes += len(sampled.prompts)
        figures = rollout_figures(rollout, scores, self.kl.coefficient, config) | update_figures(means)
        figures |= {
            "objective/kl_coefficient": self.kl.coefficient,
            "episode": float(self.episodes),
            "tokens_per_second": float(sampled.lengths.sum()) / (ended - began),
            "time/rollout": scored - began,
            "time/score": observed - scored,
            "time/update": ended - observed,
        }
        if spread is not None:
            figures["objective/spread"] = spread
        if self.shaping:
            figures["objective/shaping"] = float(shaping.mean())
        self.kl.update(figures["objective/kl"], len(sampled.prompts))
        self._tell(step + 1, figures, sampled, rollout)
        self._look_out(step + 1, figures, sampled)

    def sample(self, step: int) -> Sampled:
        """The replies of a step, not scored yet."""
        config = self.config
        chosen = prompts_of_step(len(self.prompts), step, config.prompts_per_step, config.seed)
        prompts = [self.prompts[i] for i in chosen for _ in range(config.samples_per_prompt)]
        completions = sample_replies(self.engine, prompts, config.sampling, (config.seed, "rollout", step))
        return Sampled(prompts, completions, torch.zeros(0))

    def shape(self, rollout: Rollout, lengths: Tensor) -> Tensor:
        """The scores as the policy learns from them (N,): normalised, clipped, less penalties, which so mean the same
        whatever the reward's scale."""
        config, scores = self.config, rollout.scores
        if config.normalise_rewards:
            self.moments.update(scores)
            scores = self.moments.normalised(scores, config.reward_clip)
        return shaped_scores(
            scores,
            rollout.ended,
            lengths,
            no_end_penalty=config.no_end_penalty,
            length_penalty=config.length_penalty,
        )

    def advantages(self, rollout: Rollout, scores: Tensor) -> Trajectory:
        config = self.config
        return trajectory(
            rollout, scores,
            kl_coefficient=self.kl.coefficient, kl_estimator=config.kl_estimator,
            gamma=config.gamma, gae_lambda=config.gae_lambda, whiten=config.whiten_advantages,
        )  # fmt: skip

    # --------------------------------------------------------------------------------------------------------- telling

    def _tell(self, step: int, figures: dict[str, float], sampled: Sampled, rollout: Rollout) -> None:
        config = self.config
        self.figures |= figures
        if step % config.log_every == 0 or step == config.steps:
            self.run.metric(step, figures)
        if step % max(1, config.steps // SHOWN) == 0 or step == 1:
            one = step % len(sampled.prompts)
            kl = float((rollout.logprobs - rollout.reference)[one].sum())
            detail = {"kl": kl, "tokens": float(sampled.lengths[one]), "ended": float(rollout.ended[one])}
            self.run.sample(
                step,
                sampled.prompts[one].row.messages[-1].content,
                sampled.completions[one].text,
                float(rollout.scores[one]),
                detail,
            )

    def _look_out(self, step: int, figures: Mapping[str, float], sampled: Sampled) -> None:
        if sampled.scores.numel() > 1 and float(sampled.scores.max()) == float(sampled.scores.min()):
            self._warn_once(
                "constant", step, "the reward gave every reply of a step the same score: only the KL penalty teaches"
            )
        if "skipped" in figures:
            self.run.warn(f"step {step}: a gradient was no finite number, its update is skipped", step)
        if figures.get("val/rollout_gap", 0) > MOST_GAP.get(self.updater.compute.dtype, 0.1):
            self._warn_once(
                "gap",
                step,
                f"the same tokens differ by {figures['val/rollout_gap']:.3f} nats on average between rollout and "
                "learning; set precision to fp32 if learning is unstable",
            )
        seen = {
            "token_kl": figures["objective/kl"] / max(figures["length/mean"], 1),
            "entropy": figures["objective/entropy"] / max(figures["length/mean"], 1),
            "ended": figures["val/num_eos_tokens"] / len(sampled.prompts),
            "length": figures["length/mean"],
        }
        if verdict := self.watch.see(seen):
            self.stopped = verdict
            self.run.warn(f"stopped at step {step}: {verdict}", step)

    def _warn_once(self, what: str, step: int, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self.run.warn(message, step)

    # ------------------------------------------------------------------------------------------------------- resuming

    def state(self) -> dict[str, Any]:
        return {
            "learner": self.updater.learner.state(),
            "kl": asdict(self.kl),
            "moments": asdict(self.moments),
            "watch": asdict(self.watch),
            "heldout": self.held.state(),
            "episodes": self.episodes,
            "mixed": self.mix.position if self.mix else 0,
            "figures": self.figures,
            "warned": sorted(self._warned),
            "stopped": self.stopped,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.kl = KLController(**state["kl"])
        self.moments = RunningMoments(**state["moments"])
        self.watch = Watch(**state["watch"])
        self.held.load(state["heldout"])
        self.episodes = state["episodes"]
        if self.mix:
            self.mix.position = state["mixed"]
        self.figures = state["figures"]
        self._warned = set(state["warned"])
        self.stopped = state["stopped"]
        self.updater.learner.load(state["learner"])


def rollout_figures(rollout: Rollout, scores: Tensor, coefficient: float, config: PPOSettings) -> dict[str, float]:
    """What a rollout shows, under TRL's names; sums are over a reply's tokens, means over replies."""
    mask = rollout.mask
    kl = ((rollout.logprobs - rollout.reference) * mask).sum(dim=1)
    penalty = -coefficient * (token_kl(rollout.logprobs, rollout.reference, config.kl_estimator) * mask).sum(dim=1)
    lengths = mask.sum(dim=1).float()
    return {
        "objective/kl": float(kl.mean()),
        "objective/entropy": float(-rollout.logprobs.sum(dim=1).mean()),
        "objective/non_score_reward": float(penalty.mean()),
        "objective/rlhf_reward": float((penalty + scores).mean()),
        "objective/scores": float(rollout.scores.mean()),
        "objective/values": float(masked_mean(rollout.values, mask)),
        "val/num_eos_tokens": float(rollout.ended.sum()),
        "length/mean": float(lengths.mean()),
        "length/longest": float(lengths.max()),
    }


def update_figures(means: dict[str, float]) -> dict[str, float]:
    """The means of an update under the names that are told."""
    found = {name: value for name, value in means.items() if name not in {"loss", "val/ratio_squared"}}
    if "learning_rate" in found:
        found["lr"] = found.pop("learning_rate")
    if "val/ratio" in means:
        found["val/ratio_var"] = max(0.0, means["val/ratio_squared"] - means["val/ratio"] ** 2)
    return found
