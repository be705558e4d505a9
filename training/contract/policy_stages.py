"""Settings of the stages that improve a policy by what people prefer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, model_validator

from training.contract.rewards import RewardTerm, rewards_field
from training.contract.settings import (
    PESSIMISM,
    POSITIVE,
    BatchSettings,
    LongPrompts,
    LoopSettings,
    LoraSettings,
    SamplingSettings,
    Shaping,
    ShardedLoopSettings,
    on_long_prompts,
    refuse_without_effect,
    setting,
    source_field,
)


class PPOSettings(ShardedLoopSettings):
    """PPO from human feedback (Ouyang et al. 2022, arXiv:2203.02155; Schulman et al. 2017, arXiv:1707.06347)."""

    stage: Literal["ppo"] = "ppo"
    policy: str = source_field("", "model to improve; its copy is the reference", kind="policy")
    reward: str | list[str] = source_field(
        "", "folder of the reward model, folders of several, or function:<registered name>", kind="reward"
    )
    rewards: list[RewardTerm] = rewards_field()
    pessimism: float = setting(1.0, PESSIMISM, unit="deviations", ge=0)
    steps: int = setting(100, "Rollout-and-update steps.", unit="steps", ge=1)
    prompts_per_step: int = setting(32, "Prompts per rollout.", unit="prompts", ge=1)
    samples_per_prompt: int = setting(1, "Replies sampled per prompt.", ge=1, le=64, advanced=True)
    epochs: int = setting(4, "Passes over each rollout.", ge=1, le=32)
    minibatches: int = setting(1, "Optimizer steps per pass.", ge=1, le=64, advanced=True)
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    max_prompt_tokens: int = setting(256, "Maximum prompt length.", unit="tokens", ge=8, advanced=True)
    long_prompts: LongPrompts = on_long_prompts()
    learning_rate: float = setting(1e-4, "Peak learning rate of the policy.", gt=0, le=1)
    value_learning_rate: float = setting(
        0.0, "Peak learning rate of the value head or critic; 0 uses the policy's.", ge=0, le=1, advanced=True
    )
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "linear", "How the learning rate decays after warmup.", advanced=True
    )
    kl_coefficient: float = setting(
        0.05, "Weight of the KL penalty that keeps the policy near the reference model.", ge=0
    )
    kl_target: float = setting(
        0.0, "Target KL per reply, to which the KL weight is adapted; 0 keeps the weight fixed.", unit="nats", ge=0
    )
    kl_horizon: int = setting(
        2000,
        "How slowly the KL weight adapts.",
        unit="episodes",
        ge=1,
        advanced=True,
        only_with={"kl_target": POSITIVE},
    )
    kl_estimator: Literal["k1", "k3"] = setting(
        "k1", "Estimator of the KL per token (Schulman 2020): k1 is unbiased, k3 is never negative.", advanced=True
    )
    update_kl_stop: float = setting(
        0.2,
        "Skip the remaining passes over a rollout once the policy has moved this far; 0 never skips.",
        unit="nats",
        ge=0,
        advanced=True,
    )
    gamma: float = setting(1.0, "Discount.", ge=0, le=1, advanced=True)
    gae_lambda: float = setting(
        0.95, "GAE's lambda (Schulman et al. 2015, arXiv:1506.02438).", ge=0, le=1, advanced=True
    )
    clip: float = setting(0.2, "Clipping range of the policy's ratio.", gt=0, lt=1, advanced=True)
    value_clip: float = setting(0.2, "Clipping range of the value; 0 turns clipping off.", ge=0, advanced=True)
    critic: Literal["shared", "own"] = setting(
        "shared",
        "What tells values: shared is a head on the policy, begun at zero; own is a model of its own, begun from the whole "
        "reward model, which takes the memory of a second model that learns.",
        advanced=True,
    )
    value_weight: float = setting(0.1, "Weight of the value loss.", ge=0, advanced=True)
    entropy_weight: float = setting(0.0, "Weight of the entropy bonus.", ge=0, advanced=True)
    whiten_advantages: bool = setting(
        True, "Scale advantages to mean 0 and standard deviation 1 over all reply tokens.", advanced=True
    )
    normalize_rewards: bool = setting(
        True,
        "Center scores and divide them by their running standard deviation.",
        advanced=True,
        validation_alias=AliasChoices("normalize_rewards", "normalise_rewards"),  # as earlier versions wrote it
    )
    reward_clip: float = setting(
        5.0,
        "Clip normalized scores to this range; 0 turns clipping off.",
        ge=0,
        advanced=True,
        only_with={"normalize_rewards": [True]},
    )
    shaping: Shaping = setting(
        "",
        "Registered reward functions to add to the normalized score: NAME=WEIGHT, separated by commas.",
        advanced=True,
    )
    no_end_penalty: float = setting(
        1.0, "Penalty for a reply that did not end, subtracted from its normalized score.", ge=0
    )
    length_penalty: float = setting(0.0, "Penalty per 100 tokens, subtracted from the normalized score.", ge=0)
    batch_tokens: int = setting(
        8192,
        "Tokens of pretraining text per optimizer step.",
        unit="tokens",
        ge=64,
        advanced=True,
        only_with={"ptx_weight": POSITIVE},
    )
    ptx_weight: float = setting(
        0.0, "Weight of the language-modeling loss on data/corpus.jsonl (PPO-ptx).", ge=0, advanced=True
    )
    value_warmup: int = setting(
        2, "Steps at the start in which only the value head or critic learns.", unit="steps", ge=0, advanced=True
    )
    evaluate_every: int = setting(
        20,
        "Steps between evaluations on held-out data; 0 evaluates only at the end.",
        unit="steps",
        ge=0,
        advanced=True,
    )
    checkpoint_every: int = setting(
        20, "Steps between checkpoints; 0 saves only when the run is stopped.", unit="steps", ge=0, advanced=True
    )
    log_every: int = setting(1, "Steps between logged metrics.", unit="steps", ge=1, advanced=True)
    min_rows: int = setting(1, "Minimum number of prompts to start training.", ge=1, advanced=True)
    lora: LoraSettings = Field(default_factory=LoraSettings)


WITH_REFERENCE = ["sigmoid", "ipo", "robust"]


class DPOSettings(BatchSettings):
    """Direct preference optimization through TRL (Rafailov et al. 2023, arXiv:2305.18290), and its relatives without a
    reference model."""

    stage: Literal["dpo"] = "dpo"
    policy: str = source_field("", "model to improve; its copy is the reference", kind="policy")
    epochs: float = setting(1.0, "Passes over the pairs.", gt=0)
    max_steps: int = setting(
        0, "Maximum number of optimizer steps; 0 means no limit besides the epochs.", unit="steps", ge=0
    )
    max_tokens: int = setting(512, "Longer pairs of prompt and reply are cut to this length.", unit="tokens", ge=16)
    min_rows: int = setting(20, "Minimum number of rankings to start training.", ge=1, advanced=True)
    loss: Literal["sigmoid", "ipo", "robust", "simpo", "orpo"] = setting(
        "sigmoid",
        "sigmoid is DPO; ipo regresses to a fixed margin (Azar et al. 2023, arXiv:2310.12036); robust allows for "
        "rankings that are wrong (Chowdhury et al. 2024, arXiv:2403.00409). Without a reference model: simpo compares "
        "likelihoods per token (Meng et al. 2024, arXiv:2405.14734); orpo also learns the better replies as SFT does, "
        "and can start from a base model (Hong et al. 2024, arXiv:2403.07691).",
    )
    beta: float = setting(
        0.1, "How strongly the policy is held to the reference model.", gt=0, only_with={"loss": WITH_REFERENCE}
    )
    label_smoothing: float = setting(
        0.0,
        "Share of pairs expected to be the wrong way round; only for the robust loss.",
        ge=0,
        lt=0.5,
        advanced=True,
        only_with={"loss": ["robust"]},
    )
    simpo_beta: float = setting(
        2.0,
        "How sharply SimPO tells the likelihoods of two replies apart; 2 to 10.",
        gt=0,
        only_with={"loss": ["simpo"]},
    )
    simpo_margin: float = setting(
        1.0,
        "By how much SimPO wants the better reply ahead, times simpo_beta; 0.3 to 0.5 of simpo_beta is usual.",
        ge=0,
        only_with={"loss": ["simpo"]},
    )
    orpo_weight: float = setting(
        0.1,
        "Weight of ORPO's odds ratio beside the likelihood of the better replies.",
        gt=0,
        only_with={"loss": ["orpo"]},
    )
    learning_rate: float = setting(2e-5, "Peak learning rate.", gt=0, le=1)
    lora: LoraSettings = Field(default_factory=LoraSettings)

    @model_validator(mode="after")
    def settings_fit_the_loss(self) -> DPOSettings:
        if (self.loss == "robust") != (self.label_smoothing > 0):
            raise ValueError("label_smoothing: the robust loss needs it above 0, and the other losses do not use it")
        refuse_without_effect(self)
        return self

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares with a frozen copy of the policy."""
        return self.loss in WITH_REFERENCE


class KTOSettings(BatchSettings):
    """Kahneman-Tversky optimization through TRL (Ethayarajh et al. 2024, arXiv:2402.01306): learns from replies that are
    good or bad by themselves, not from pairs."""

    stage: Literal["kto"] = "kto"
    policy: str = source_field("", "model to improve; its copy is the reference", kind="policy")
    epochs: float = setting(1.0, "Passes over the replies.", gt=0)
    max_steps: int = setting(
        0, "Maximum number of optimizer steps; 0 means no limit besides the epochs.", unit="steps", ge=0
    )
    max_tokens: int = setting(512, "Longer pairs of prompt and reply are cut to this length.", unit="tokens", ge=16)
    min_rows: int = setting(20, "Minimum number of rankings to start training.", ge=1, advanced=True)
    beta: float = setting(0.1, "How strongly the policy is held to the reference model.", gt=0)
    desirable_weight: float = setting(1.0, "Weight of the loss on good replies.", ge=0, advanced=True)
    undesirable_weight: float = setting(1.0, "Weight of the loss on bad replies.", ge=0, advanced=True)
    learning_rate: float = setting(2e-5, "Peak learning rate.", gt=0, le=1)
    lora: LoraSettings = Field(default_factory=LoraSettings)


class GRPOSettings(LoopSettings):
    """Group relative policy optimization through TRL (Shao et al. 2024, arXiv:2402.03300): PPO without a value, each reply
    measured against the others to its prompt. Replies come from our own engine."""

    unused: ClassVar[Mapping[str, tuple[Any, str]]] = {
        **LoopSettings.unused,
        "batch_tokens": (8192, "a step takes prompts_per_step times samples_per_prompt replies"),
    }
    stage: Literal["grpo"] = "grpo"
    policy: str = source_field("", "model to improve; its copy is the reference", kind="policy")
    reward: str | list[str] = source_field(
        "", "folder of the reward model, folders of several, or function:<registered name>", kind="reward"
    )
    rewards: list[RewardTerm] = rewards_field()
    pessimism: float = setting(1.0, PESSIMISM, unit="deviations", ge=0)
    steps: int = setting(100, "Rollout-and-update steps.", unit="steps", ge=1)
    prompts_per_step: int = setting(8, "Prompts per rollout.", unit="prompts", ge=1)
    samples_per_prompt: int = setting(8, "Replies sampled per prompt, which are compared with each other.", ge=2, le=64)
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    max_prompt_tokens: int = setting(256, "Maximum prompt length.", unit="tokens", ge=8, advanced=True)
    long_prompts: LongPrompts = on_long_prompts()
    beta: float = setting(
        0.04, "Weight of the KL penalty that keeps the policy near the reference model; 0 turns it off.", ge=0
    )
    epochs: int = setting(1, "Passes over each rollout.", ge=1, le=32, advanced=True)
    minibatches: int = setting(1, "Optimizer steps per pass.", ge=1, le=64, advanced=True)
    clip: float = setting(
        0.2,
        "Clipping range of the policy's ratio; it takes effect from the second optimizer step on a rollout.",
        gt=0,
        lt=1,
        advanced=True,
    )
    clip_high: float = setting(
        0.0,
        "Upper clipping range, 0.28 in DAPO (Yu et al. 2025, arXiv:2503.14476); 0 uses clip for both sides.",
        ge=0,
        lt=10,
        advanced=True,
    )
    shaping: Shaping = setting(
        "",
        "Registered reward functions to add to the score: NAME=WEIGHT, separated by commas.",
        advanced=True,
    )
    loss: Literal["grpo", "bnpo", "dapo", "dr_grpo", "rloo"] = setting(
        "dapo",
        "How the loss of a step's tokens is averaged: grpo within each reply, then over replies; bnpo over the tokens "
        "of a pass; dapo over those of the step (Yu et al. 2025, arXiv:2503.14476); dr_grpo by the constant "
        "max_new_tokens, so that length does not count (Liu et al. 2025, arXiv:2503.20783). rloo is REINFORCE: as "
        "dr_grpo, each reply measured against the mean of the others, the KL penalty part of the reward (Ahmadian et "
        "al. 2024, arXiv:2402.14740).",
        advanced=True,
    )
    scale_rewards: bool = setting(
        True,
        "Divide a group's advantages by the standard deviation of its rewards.",
        advanced=True,
        only_with={"loss": ["grpo", "bnpo", "dapo", "dr_grpo"]},
    )
    dynamic_sampling: int = setting(
        0,
        "How many times, at most, the prompts of a step whose replies all get the same reward are replaced by others, "
        "for nothing can be learned from them (DAPO); 0 keeps them.",
        unit="rounds",
        ge=0,
        le=20,
        advanced=True,
    )
    ratio: Literal["token", "sequence"] = setting(
        "token",
        "What is clipped: each token's ratio, or their geometric mean over a reply (GSPO, Zheng et al. 2025, "
        "arXiv:2507.18071), for which the loss must be grpo.",
        advanced=True,
        only_with={"loss": ["grpo"]},
    )
    mask_truncated: bool = setting(
        False, "Learn nothing from replies that did not end within max_new_tokens (DAPO).", advanced=True
    )
    learning_rate: float = setting(1e-5, "Peak learning rate.", gt=0, le=1)
    evaluate_every: int = setting(
        20,
        "Steps between evaluations on held-out data; 0 evaluates only at the end.",
        unit="steps",
        ge=0,
        advanced=True,
    )
    log_every: int = setting(1, "Steps between logged metrics.", unit="steps", ge=1, advanced=True)
    min_rows: int = setting(1, "Minimum number of prompts to start training.", ge=1, advanced=True)
    lora: LoraSettings = Field(default_factory=LoraSettings)

    @model_validator(mode="after")
    def ratio_fits_the_loss(self) -> GRPOSettings:
        if self.ratio == "sequence" and self.loss != "grpo":
            raise ValueError("ratio: the ratio of whole replies (GSPO) needs the loss grpo")
        refuse_without_effect(self)
        return self
