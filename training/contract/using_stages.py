"""Settings of the stages that use models: sampling, evaluation, serving."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.contract.rewards import RewardTerm, rewards_field
from training.contract.settings import (
    PESSIMISM,
    ComputeSettings,
    LongPrompts,
    SamplingSettings,
    SeededSettings,
    Trackers,
    on_long_prompts,
    report_project_field,
    report_to_field,
    setting,
    source_field,
)

ChatTemplate = Literal["keep", "family", "chatml", "llama3", "gemma", "zephyr"]


class AddSettings(ComputeSettings):
    """A model from elsewhere becomes one of the project's."""

    stage: Literal["add"] = "add"
    base: str = source_field(
        "", "model to add: a name on the Hugging Face hub, a folder, or a file (.zip, .tar, .gguf)", kind="base"
    )
    revision: str = setting(
        "", "Branch, tag or commit on the hub; leave empty for the newest.", max_length=100, advanced=True
    )
    chat_template: ChatTemplate = setting(
        "keep",
        "How turns are written. Base models have no template: family gives them the one of their own family, if that "
        "is ChatML (Qwen, SmolLM), Llama 3 or Gemma; the others give theirs to any model. SFT then teaches it, with "
        "the tokens that it brings; zephyr brings none.",
    )


ExportFormat = Literal[
    "bf16", "fp16", "fp32", "adapter",
    "gguf-q8_0", "gguf-f16", "gguf-bf16", "gguf-q5_1", "gguf-q5_0", "gguf-q4_1", "gguf-q4_0",
]  # fmt: skip


class ExportSettings(ComputeSettings):
    """A model leaves: files that other programs run."""

    stage: Literal["export"] = "export"
    base: str = source_field("", "model to export", kind="base")
    format: ExportFormat = setting(
        "bf16",
        "bf16, fp16 and fp32 are Hugging Face folders, for transformers and vLLM; an adapter is merged. adapter is the "
        "adapter alone. gguf files are for llama.cpp, Ollama and LM Studio: q8_0 is half as large as f16 and nearly as "
        "good, q4_1 and q4_0 are a quarter.",
    )
    name: str = setting(
        "",
        "What the GGUF file's name begins with; empty: model.",
        max_length=80,
        pattern=r"^[A-Za-z0-9._-]*$",
        advanced=True,
    )
    push_to: str = setting(
        "",
        "Repository on the Hugging Face hub that gets the files, too, such as your-name/model; it is made if it is "
        "missing. Your profile page must have a token with write access. Empty: none.",
        max_length=200,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)?$",
    )
    public: bool = setting(False, "Whether everybody may see the repository that is made.")


class SampleSettings(SeededSettings):
    stage: Literal["sample"] = "sample"
    policy: str = source_field("", "model that replies", kind="policy")
    reward: str | list[str] = source_field(
        "", "reward model, or several, that scores the replies; empty leaves them unscored", kind="reward"
    )
    rewards: list[RewardTerm] = rewards_field()
    pessimism: float = setting(0.0, PESSIMISM, unit="deviations", ge=0, advanced=True)
    replies: int = setting(4, "Replies to each prompt.", ge=1, le=64)
    distinct: bool = setting(True, "Draw again, a few times, where a reply repeats another one of its prompt.")
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    max_prompt_tokens: int = setting(512, "Maximum prompt length.", unit="tokens", ge=8, advanced=True)
    long_prompts: LongPrompts = on_long_prompts()
    slots: int = setting(32, "Replies generated at once.", ge=1, le=1024, advanced=True)


class EvaluateSettings(SeededSettings):
    stage: Literal["evaluate"] = "evaluate"
    policy: str = source_field("", "model under test: bits per byte, loss on demonstrations, replies", kind="policy")
    reward: str | list[str] = source_field(
        "", "reward model, or several: accuracy on rankings, scores of replies", kind="reward"
    )
    rewards: list[RewardTerm] = rewards_field()
    pessimism: float = setting(0.0, PESSIMISM, unit="deviations", ge=0, advanced=True)
    baseline: str = source_field("", "model whose replies are compared with the policy's", kind="policy")
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    max_tokens: int = setting(512, "Longest text in one forward pass.", unit="tokens", ge=16, advanced=True)
    long_prompts: LongPrompts = on_long_prompts()
    slots: int = setting(32, "Replies generated at once.", ge=1, le=1024, advanced=True)
    report_to: Trackers = report_to_field()
    report_project: str = report_project_field()


ServedWeights = Literal["full", "int8"]


class ServeSettings(ComputeSettings):
    """`models` maps served names to folders or names on the Hugging Face hub; more folders come and go by
    /v1/load_lora_adapter and /v1/unload_lora_adapter."""

    stage: Literal["serve"] = "serve"
    host: str = "127.0.0.1"
    port: int = Field(8300, ge=0, le=65535)
    models: dict[str, str] = Field(default_factory=dict)
    slots: int = Field(16, ge=1, le=1024, description="replies generated at once, for each model")
    max_models: int = Field(8, ge=1, description="the least recently used model leaves when one more is loaded")
    default_max_tokens: int = Field(
        1024, ge=1, description="longest reply, in tokens, of a chat request that sets no limit itself"
    )
    kv_cache_gb: float = Field(
        0,
        ge=0,
        description="memory for keys and values of all models together, GB; 0 takes half of what is free",
    )
    weights: ServedWeights = Field(
        "full",
        description="int8 rounds the weights of Llama-like models to 8 bits: faster replies on CPUs, and not quite the "
        "model that was trained",
    )
    token: str = Field("", description="when set, every request but GET /health needs it as a bearer token")
