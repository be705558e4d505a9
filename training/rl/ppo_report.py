"""What a PPO step reports: its figures, a sample, and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from training.contract import PPOSettings
from training.rl.losses import Rollout, masked_mean, token_kl
from training.rl.ppo_state import PPOState
from training.rl.rollouts import Sampled

SAMPLES: Final = 50  # samples logged over a whole run, about
MAX_GAP: Final = {torch.float32: 0.01, torch.bfloat16: 0.1}  # nats per token between rollout and update


def rollout_figures(rollout: Rollout, scores: Tensor, coefficient: float, config: PPOSettings) -> dict[str, float]:
    """Figures of a rollout under TRL's names: sums over a reply's tokens, means over replies."""
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


def update_figures(means: Mapping[str, float]) -> dict[str, float]:
    """The means of an update's figures under TRL's names."""
    figures = {name: value for name, value in means.items() if name not in {"loss", "val/ratio_squared"}}
    if "learning_rate" in figures:
        figures["lr"] = figures.pop("learning_rate")
    if "val/ratio" in means:
        figures["val/ratio_var"] = max(0.0, means["val/ratio_squared"] - means["val/ratio"] ** 2)
    return figures


def report_step(ppo: PPOState, step: int, figures: dict[str, float], sampled: Sampled, rollout: Rollout) -> None:
    """Log the figures of a step and, now and then, one of its replies; warn if something looks wrong, and stop the run
    if the policy has diverged."""
    config = ppo.config
    ppo.figures |= figures
    if step % config.log_every == 0 or step == config.steps:
        ppo.run.metric(step, figures)
    if step % max(1, config.steps // SAMPLES) == 0 or step == 1:
        log_sample(ppo, step, sampled, rollout)
    warn_of_trouble(ppo, step, figures, sampled)
    tokens = max(figures["length/mean"], 1)
    ppo.stop_reason = ppo.monitor.update(
        {
            "token_kl": figures["objective/kl"] / tokens,
            "entropy": figures["objective/entropy"] / tokens,
            "ended": figures["val/num_eos_tokens"] / len(sampled.prompts),
            "length": figures["length/mean"],
        }
    )
    if ppo.stop_reason:
        ppo.run.warn(f"stopped at step {step}: {ppo.stop_reason}", step)


def log_sample(ppo: PPOState, step: int, sampled: Sampled, rollout: Rollout) -> None:
    row = step % len(sampled.prompts)
    kl = float((rollout.logprobs - rollout.reference)[row].sum())
    ppo.run.sample(
        step,
        sampled.prompts[row].row.messages[-1].content,
        sampled.completions[row].text,
        float(rollout.scores[row]),
        {"kl": kl, "tokens": float(sampled.lengths[row]), "ended": float(rollout.ended[row])}
        | sampled.components[row].named(),
        sampled.prompts[row].row.reference,
    )


def warn_of_trouble(ppo: PPOState, step: int, figures: Mapping[str, float], sampled: Sampled) -> None:
    if sampled.scores.numel() > 1 and float(sampled.scores.max()) == float(sampled.scores.min()):
        ppo.warn_once(
            "constant", step, "the reward gave every reply of a step the same score: only the KL penalty teaches"
        )
    if "skipped" in figures:
        ppo.run.warn(f"step {step}: a gradient was no finite number, its update is skipped", step)
    if figures.get("val/rollout_gap", 0) > MAX_GAP.get(ppo.compute.dtype, 0.1):
        ppo.warn_once(
            "gap",
            step,
            f"the same tokens differ by {figures['val/rollout_gap']:.3f} nats on average between rollout and "
            "learning; set precision to fp32 if learning is unstable",
        )
