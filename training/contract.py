"""The run folder: what a caller writes, what training writes back.

A caller (the site, a person, a notebook) makes a folder with `config.json` and `data/*.jsonl`, and starts
`python -m training STAGE RUN_DIR`. Training appends to `events.jsonl`, keeps `checkpoint-N/`, and ends with `model/` or
`output/` and `result.json`. Every file is described here as a pydantic model, so both sides read the same definition;
unknown keys are errors on the way in. This module imports neither torch nor Django.

    stage      reads data/                                     writes
    corpus     documents.jsonl                                 output/corpus.jsonl, output/heldout.jsonl, output/dropped.jsonl
    tokenizer  corpus.jsonl                                    model/ (tokenizer and chat template only)
    pretrain   corpus.jsonl, heldout.jsonl?                    model/
    sft        demonstrations.jsonl, heldout.jsonl?            model/
    reward     rankings.jsonl, heldout.jsonl?                  model/ (one scalar head)
    ppo        prompts.jsonl, heldout.jsonl?, corpus.jsonl?    model/ (the policy)
    dpo, kto   rankings.jsonl, heldout.jsonl?                  model/
    grpo       prompts.jsonl, heldout.jsonl?                   model/
    sample     prompts.jsonl                                   output/samples.jsonl
    evaluate   text.jsonl? demonstrations.jsonl?               output/rankings.jsonl?, output/samples.jsonl?,
               rankings.jsonl? prompts.jsonl? (at least one)    output/baseline.jsonl?
    serve      nothing                                         nothing: it answers HTTP until it is stopped

Exit status of every stage: 0 done; 1 failed, with a `failed` event that carries the sentence for a person;
2 the config or the data do not fit (nothing was started); 143 stopped by SIGTERM after writing a checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

Stage = Literal[
    "corpus", "tokenizer", "pretrain", "sft", "reward", "ppo", "dpo", "kto", "grpo", "evaluate", "sample", "serve"
]  # fmt: skip
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

CONFIG: Final = "config.json"
DATA: Final = "data"
EVENTS: Final = "events.jsonl"
LOG: Final = "log.txt"
MODEL: Final = "model"
OUTPUT: Final = "output"
RESULT: Final = "result.json"
LOCK: Final = "lock"

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_INVALID: Final = 2
EXIT_STOPPED: Final = 143


class TrainingError(Exception):
    """A failure a person can act on: `message` is the whole sentence, `code` is for programs."""

    exit_status = EXIT_FAILED

    def __init__(self, message: str, *, code: str = "failed") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class InputError(TrainingError):
    """The config, the data or a model that the config names does not fit; nothing was started."""

    exit_status = EXIT_INVALID


# ------------------------------------------------------------------------------------------------- rows of data/*.jsonl


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="what the caller calls this row, e.g. ranking:12; comes back in results")


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class TextRow(Row):
    """One document, as collected (documents.jsonl) or cleaned (corpus.jsonl, heldout.jsonl, text.jsonl)."""

    text: str
    source: str = ""
    format: Literal["text", "html"] = "text"


class DroppedRow(Row):
    """A document that cleaning left out: a line of output/dropped.jsonl."""

    reason: str = Field(description="too short, no text, other language, copy, near copy")
    detail: str = Field("", description="of what it is a copy, which language it is in, ...")
    start: str = Field(description="its first 200 characters")


class PromptRow(Row):
    """A conversation up to and including the user's turn that wants a reply."""

    messages: list[Turn] = Field(min_length=1)


class DemonstrationRow(Row):
    """A conversation that ends with the assistant's turn to learn; earlier assistant turns are learned too."""

    messages: list[Turn] = Field(min_length=2)
    weight: float = Field(1.0, ge=0)
    source: str = ""

    @model_validator(mode="after")
    def _ends_with_the_assistant(self) -> DemonstrationRow:
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's")
        return self


class RankingRow(Row):
    """One person's ordering of K replies to one prompt. `groups` holds indices into `replies`, best group first; replies
    that share a group are tied. `[[2], [0, 1]]`: reply 2 beats 0 and 1, which tie."""

    messages: list[Turn] = Field(min_length=1)
    replies: list[str] = Field(min_length=2)
    groups: list[list[int]] = Field(min_length=1)
    strength: float | None = Field(None, ge=0, description="how much better, where the person said so")
    weight: float = Field(1.0, ge=0, description="the annotator's reliability")
    annotator: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _groups_are_a_partition(self) -> RankingRow:
        if sorted(i for group in self.groups for i in group) != list(range(len(self.replies))):
            raise ValueError("groups must name each reply exactly once")
        return self


class SampleRow(Row):
    """A reply that a model gave: a line of output/samples.jsonl. `id` is `<prompt id>#<k>`."""

    prompt_id: str
    messages: list[Turn]
    reply: str
    tokens: int = Field(ge=0, description="length of the reply, end-of-text token included where it was produced")
    finish: Literal["stop", "length"]
    logprob: float = Field(description="mean log-probability a token, natural logarithm")
    reward: float | None = None


class ScoresRow(Row):
    """What a reward says of a ranking's replies, in their order: a line of output/rankings.jsonl, under the ranking's
    id."""

    scores: list[float]
    agrees: float = Field(
        ge=0, le=1, description="share of the person's decided comparisons that it sees so; 0.5: equal"
    )


ROWS: Final[dict[str, type[Row]]] = {
    "documents": TextRow,
    "corpus": TextRow,
    "text": TextRow,
    "prompts": PromptRow,
    "demonstrations": DemonstrationRow,
    "rankings": RankingRow,
}

# Which files of data/ a stage needs (True) or may use (False), and what its rows are. `heldout` has the rows of the first.
INPUTS: Final[dict[Stage, dict[str, bool]]] = {
    "corpus": {"documents": True},
    "tokenizer": {"corpus": True},
    "pretrain": {"corpus": True, "heldout": False},
    "sft": {"demonstrations": True, "heldout": False},
    "reward": {"rankings": True, "heldout": False},
    "ppo": {"prompts": True, "heldout": False, "corpus": False},
    "dpo": {"rankings": True, "heldout": False},
    "kto": {"rankings": True, "heldout": False},
    "grpo": {"prompts": True, "heldout": False},
    "evaluate": {"text": False, "demonstrations": False, "rankings": False, "prompts": False},
    "sample": {"prompts": True},
    "serve": {},
}


def row_type(stage: Stage, name: str) -> type[Row]:
    """The model of a line of data/<name>.jsonl for `stage`."""
    first = next(iter(INPUTS[stage]), name)
    return ROWS[first if name == "heldout" else name]


# --------------------------------------------------------------------------------------------------------- config.json


def setting(default: Any, description: str, *, unit: str = "", advanced: bool = False, **constraints: Any) -> Any:
    """A field a person may change on the launch form."""
    return Field(
        default, description=description, json_schema_extra={"unit": unit, "advanced": advanced}, **constraints
    )


def source(default: Any, description: str, *, kind: str) -> Any:
    """A field the caller fills with a path or name: `kind` is tokenizer, base, policy or reward. Never on the form."""
    return Field(default, description=description, json_schema_extra={"source": kind})


class Settings(BaseModel):
    """What every stage takes."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    seed: int = setting(
        0, "Seeds every random choice; the same seed and data give the same result.", ge=0, advanced=True
    )
    threads: int = setting(0, "CPU threads; 0 takes all there are.", unit="threads", ge=0, le=256, advanced=True)
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "Where to compute; auto takes a GPU if there is one.", advanced=True
    )


class CorpusSettings(Settings):
    stage: Literal["corpus"] = "corpus"
    min_chars: int = setting(40, "Shorter documents are dropped.", unit="characters", ge=0)
    max_chars: int = setting(200_000, "Longer documents are cut into pieces of this length.", unit="characters", ge=100)
    near_duplicates: float = setting(
        0.8,
        "Jaccard similarity of word 5-grams from which a document counts as a copy; 1 keeps all but exact copies.",
        gt=0,
        le=1,
    )
    language: str = setting(
        "",
        "Keep only text whose common words are this language's (en, de, fr, es); empty keeps all.",
        max_length=8,
        advanced=True,
    )
    strip_personal_data: bool = setting(
        True, "Replace e-mail addresses, phone numbers and card numbers by placeholders."
    )
    heldout_fraction: float = setting(
        0.02, "Share of documents kept out of training, chosen by a hash of their text.", ge=0, le=0.5
    )


class TokenizerSettings(Settings):
    stage: Literal["tokenizer"] = "tokenizer"
    vocabulary: int = setting(
        2048, "Size of the byte-level BPE vocabulary, special tokens included.", unit="tokens", ge=300, le=200_000
    )
    context: int = setting(
        1024, "Longest text the tokenizer announces.", unit="tokens", ge=64, le=131_072, advanced=True
    )


class LoopSettings(Settings):
    """What the stages that take gradient steps share."""

    learning_rate: float = setting(3e-4, "Peak learning rate.", gt=0, le=1)
    batch_tokens: int = setting(8192, "Tokens in one optimiser step, padding not counted.", unit="tokens", ge=64)
    micro_tokens: int = setting(
        4096,
        "Most tokens, padding counted, in one forward pass; lower it when memory is short.",
        unit="tokens",
        ge=32,
        advanced=True,
    )
    warmup: float = setting(0.05, "Share of the steps over which the learning rate rises.", ge=0, le=1, advanced=True)
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "How the learning rate falls after the warm-up.", advanced=True
    )
    final_lr: float = setting(0.1, "Where the schedule ends, as a share of the peak.", ge=0, le=1, advanced=True)
    weight_decay: float = setting(0.01, "AdamW weight decay on matrices.", ge=0, le=1, advanced=True)
    beta2: float = setting(0.95, "AdamW second-moment decay.", gt=0, lt=1, advanced=True)
    grad_clip: float = setting(
        1.0, "Gradient norm above which gradients are scaled down; 0 never.", ge=0, advanced=True
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "Arithmetic of the matrix products; auto takes bf16 where the device is faster with it.", advanced=True
    )
    minutes: float = setting(0.0, "Stop after this long and keep the model; 0 runs all steps.", unit="minutes", ge=0)
    log_every: int = setting(5, "Steps between metric events.", unit="steps", ge=1, advanced=True)
    evaluate_every: int = setting(
        50, "Steps between held-out evaluations; 0 only at the end.", unit="steps", ge=0, advanced=True
    )
    checkpoint_every: int = setting(
        50, "Steps between checkpoints; 0 only when stopped.", unit="steps", ge=0, advanced=True
    )
    keep_checkpoints: int = setting(2, "Older checkpoints are deleted.", ge=1, advanced=True)


class LoraSettings(BaseModel):
    """A low-rank adapter in place of full fine-tuning (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(extra="forbid")

    rank: int = setting(0, "Rank of the adapter; 0 trains every weight.", ge=0, le=512)
    alpha: float = setting(16.0, "Scale of the adapter, divided by its rank.", gt=0, advanced=True)
    dropout: float = setting(0.0, "Dropout inside the adapter.", ge=0, lt=1, advanced=True)
    targets: str = setting("all-linear", "Module names that get an adapter, separated by commas.", advanced=True)


class PretrainSettings(LoopSettings):
    stage: Literal["pretrain"] = "pretrain"
    tokenizer: str = source("", "folder or hub name of the tokenizer", kind="tokenizer")
    base: str = source("", "model to go on from; empty starts from random weights", kind="base")
    layers: int = setting(4, "Transformer layers.", ge=1, le=200)
    hidden: int = setting(192, "Width of the model.", ge=16, le=16_384)
    heads: int = setting(6, "Attention heads; must divide the width.", ge=1, le=256)
    kv_heads: int = setting(0, "Key-value heads; 0 as many as heads.", ge=0, le=256, advanced=True)
    context: int = setting(256, "Tokens in a training row, and the model's context.", unit="tokens", ge=16, le=131_072)
    epochs: float = setting(1.0, "Passes over the corpus.", gt=0)
    max_steps: int = setting(0, "Most optimiser steps; 0 as the epochs say.", unit="steps", ge=0)
    learning_rate: float = setting(2e-3, "Peak learning rate.", gt=0, le=1)
    weight_decay: float = setting(0.1, "AdamW weight decay on matrices.", ge=0, le=1, advanced=True)

    @model_validator(mode="after")
    def _heads_divide(self) -> PretrainSettings:
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(f"hidden {self.hidden} must be heads {self.heads} times an even number")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {self.heads}")
        return self


class SFTSettings(LoopSettings):
    stage: Literal["sft"] = "sft"
    base: str = source("", "folder or hub name of the model to fine-tune", kind="base")
    epochs: float = setting(3.0, "Passes over the demonstrations.", gt=0)
    max_steps: int = setting(0, "Most optimiser steps; 0 as the epochs say.", unit="steps", ge=0)
    max_tokens: int = setting(512, "Conversations are cut to this length, from the left.", unit="tokens", ge=16)
    min_rows: int = setting(1, "Fewest demonstrations to start with.", ge=1, advanced=True)
    lora: LoraSettings = Field(default_factory=LoraSettings)


class RewardSettings(LoopSettings):
    stage: Literal["reward"] = "reward"
    base: str = source("", "model the reward model starts from, usually the SFT model", kind="base")
    epochs: float = setting(1.0, "Passes over the rankings; more than a few over-fits.", gt=0)
    max_steps: int = setting(0, "Most optimiser steps; 0 as the epochs say.", unit="steps", ge=0)
    max_tokens: int = setting(
        512, "Prompt and reply are cut to this length, the prompt from the left.", unit="tokens", ge=16
    )
    min_rows: int = setting(20, "Fewest rankings to start with.", ge=1, advanced=True)
    ties: Literal["half", "davidson", "drop"] = setting(
        "half", "What a tie teaches: half a win each way, Davidson's tie model, or nothing."
    )
    margin: float = setting(0.0, "Margin in the loss for each unit of stated strength.", ge=0, advanced=True)
    centring: float = setting(
        0.01, "Weight of the penalty that keeps rewards centred at zero (Eisenstein et al. 2023).", ge=0, advanced=True
    )
    learning_rate: float = setting(1e-4, "Peak learning rate.", gt=0, le=1)
    lora: LoraSettings = Field(default_factory=LoraSettings)


class SamplingSettings(BaseModel):
    """How a reply is drawn."""

    model_config = ConfigDict(extra="forbid")

    temperature: float = setting(
        1.0, "0 always takes the likeliest token; 1 samples as the model believes.", ge=0, le=5
    )
    top_p: float = setting(1.0, "Sample from the likeliest tokens that hold this share of the probability.", gt=0, le=1)
    top_k: int = setting(0, "Sample from this many likeliest tokens; 0 all.", ge=0, advanced=True)
    max_new_tokens: int = setting(96, "A reply is cut here.", unit="tokens", ge=1, le=32_768)


class PPOSettings(LoopSettings):
    """PPO from human feedback (Ouyang et al. 2022, arXiv:2203.02155; Schulman et al. 2017, arXiv:1707.06347)."""

    stage: Literal["ppo"] = "ppo"
    policy: str = source("", "model to improve; its copy is the reference", kind="policy")
    reward: str = source("", "folder of the reward model, or function:<registered name>", kind="reward")
    steps: int = setting(100, "Rollout-and-update steps.", unit="steps", ge=1)
    prompts_per_step: int = setting(32, "Prompts in one rollout.", unit="prompts", ge=1)
    samples_per_prompt: int = setting(1, "Replies drawn for each prompt of a rollout.", ge=1, le=64, advanced=True)
    epochs: int = setting(4, "Passes over each rollout.", ge=1, le=32)
    minibatches: int = setting(1, "Optimiser steps in each pass.", ge=1, le=64, advanced=True)
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    max_prompt_tokens: int = setting(
        256, "Longer prompts are left out, and counted.", unit="tokens", ge=8, advanced=True
    )
    learning_rate: float = setting(1e-4, "Peak learning rate of the policy.", gt=0, le=1)
    value_learning_rate: float = setting(
        0.0, "Peak learning rate of the value head; 0 as the policy's.", ge=0, le=1, advanced=True
    )
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "linear", "How the learning rate falls after the warm-up.", advanced=True
    )
    kl_coefficient: float = setting(0.05, "Weight of the KL divergence from the reference in the reward.", ge=0)
    kl_target: float = setting(
        0.0, "Adapt the weight so that the KL a reply stays near this; 0 keeps it fixed.", unit="nats", ge=0
    )
    kl_horizon: int = setting(2000, "How slowly the weight adapts.", unit="episodes", ge=1, advanced=True)
    kl_estimator: Literal["k1", "k3"] = setting(
        "k1", "Estimator of the token's KL (Schulman 2020): k1 is unbiased, k3 is never negative.", advanced=True
    )
    update_kl_stop: float = setting(
        0.2,
        "Leave a rollout's remaining passes when the update moved this far; 0 never.",
        unit="nats",
        ge=0,
        advanced=True,
    )
    gamma: float = setting(1.0, "Discount.", ge=0, le=1, advanced=True)
    gae_lambda: float = setting(
        0.95, "GAE's lambda (Schulman et al. 2015, arXiv:1506.02438).", ge=0, le=1, advanced=True
    )
    clip: float = setting(0.2, "Clipping range of the policy's ratio.", gt=0, lt=1, advanced=True)
    value_clip: float = setting(0.2, "Clipping range of the value; 0 none.", ge=0, advanced=True)
    value_weight: float = setting(0.1, "Weight of the value loss.", ge=0, advanced=True)
    entropy_weight: float = setting(0.0, "Weight of the entropy bonus.", ge=0, advanced=True)
    whiten_advantages: bool = setting(
        True, "Scale advantages to mean 0 and deviation 1 over the replies' tokens.", advanced=True
    )
    normalise_rewards: bool = setting(True, "Centre scores and divide them by their running deviation.", advanced=True)
    reward_clip: float = setting(5.0, "Clip normalised scores to this range; 0 none.", ge=0, advanced=True)
    no_end_penalty: float = setting(1.0, "Subtracted from the normalised score of a reply that did not end.", ge=0)
    length_penalty: float = setting(0.0, "Subtracted from the normalised score for each 100 tokens.", ge=0)
    ptx_weight: float = setting(
        0.0, "Weight of the language-model loss on data/corpus.jsonl (PPO-ptx).", ge=0, advanced=True
    )
    value_warmup: int = setting(2, "Steps in which only the value learns.", unit="steps", ge=0, advanced=True)
    evaluate_every: int = setting(
        20, "Steps between held-out evaluations; 0 only at the end.", unit="steps", ge=0, advanced=True
    )
    checkpoint_every: int = setting(
        20, "Steps between checkpoints; 0 only when stopped.", unit="steps", ge=0, advanced=True
    )
    log_every: int = setting(1, "Steps between metric events.", unit="steps", ge=1, advanced=True)
    min_rows: int = setting(1, "Fewest prompts to start with.", ge=1, advanced=True)
    lora: LoraSettings = Field(default_factory=LoraSettings)


class DPOSettings(LoopSettings):
    """Direct preference optimisation through TRL (Rafailov et al. 2023, arXiv:2305.18290)."""

    stage: Literal["dpo"] = "dpo"
    policy: str = source("", "model to improve; its copy is the reference", kind="policy")
    epochs: float = setting(1.0, "Passes over the pairs.", gt=0)
    max_steps: int = setting(0, "Most optimiser steps; 0 as the epochs say.", unit="steps", ge=0)
    max_tokens: int = setting(512, "Prompt and reply are cut to this length.", unit="tokens", ge=16)
    min_rows: int = setting(20, "Fewest rankings to start with.", ge=1, advanced=True)
    beta: float = setting(0.1, "Strength of the pull to the reference.", gt=0)
    learning_rate: float = setting(2e-5, "Peak learning rate.", gt=0, le=1)
    lora: LoraSettings = Field(default_factory=LoraSettings)


class KTOSettings(LoopSettings):
    """Kahneman-Tversky optimisation through TRL (Ethayarajh et al. 2024, arXiv:2402.01306): learns from replies that are
    good or bad by themselves, not from pairs."""

    stage: Literal["kto"] = "kto"
    policy: str = source("", "model to improve; its copy is the reference", kind="policy")
    epochs: float = setting(1.0, "Passes over the replies.", gt=0)
    max_steps: int = setting(0, "Most optimiser steps; 0 as the epochs say.", unit="steps", ge=0)
    max_tokens: int = setting(512, "Prompt and reply are cut to this length.", unit="tokens", ge=16)
    min_rows: int = setting(20, "Fewest rankings to start with.", ge=1, advanced=True)
    beta: float = setting(0.1, "Strength of the pull to the reference.", gt=0)
    desirable_weight: float = setting(1.0, "Weight of the loss on good replies.", ge=0, advanced=True)
    undesirable_weight: float = setting(1.0, "Weight of the loss on bad replies.", ge=0, advanced=True)
    learning_rate: float = setting(2e-5, "Peak learning rate.", gt=0, le=1)
    lora: LoraSettings = Field(default_factory=LoraSettings)


class GRPOSettings(LoopSettings):
    """Group relative policy optimisation through TRL (Shao et al. 2024, arXiv:2402.03300): PPO without a value, each reply
    measured against the others to its prompt. Replies come from our own engine."""

    stage: Literal["grpo"] = "grpo"
    policy: str = source("", "model to improve; its copy is the reference", kind="policy")
    reward: str = source("", "folder of the reward model, or function:<registered name>", kind="reward")
    steps: int = setting(100, "Rollout-and-update steps.", unit="steps", ge=1)
    prompts_per_step: int = setting(8, "Prompts in one rollout.", unit="prompts", ge=1)
    samples_per_prompt: int = setting(
        8, "Replies drawn for each prompt, to be measured against each other.", ge=2, le=64
    )
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    max_prompt_tokens: int = setting(
        256, "Longer prompts are left out, and counted.", unit="tokens", ge=8, advanced=True
    )
    beta: float = setting(0.04, "Weight of the KL divergence from the reference; 0 none.", ge=0)
    clip: float = setting(0.2, "Clipping range of the policy's ratio.", gt=0, lt=1, advanced=True)
    scale_rewards: bool = setting(True, "Divide a group's advantages by the deviation of its rewards.", advanced=True)
    learning_rate: float = setting(1e-5, "Peak learning rate.", gt=0, le=1)
    log_every: int = setting(1, "Steps between metric events.", unit="steps", ge=1, advanced=True)
    min_rows: int = setting(1, "Fewest prompts to start with.", ge=1, advanced=True)
    lora: LoraSettings = Field(default_factory=LoraSettings)


class SampleSettings(Settings):
    stage: Literal["sample"] = "sample"
    policy: str = source("", "model that replies", kind="policy")
    reward: str = source("", "reward model that scores the replies; empty leaves them unscored", kind="reward")
    replies: int = setting(4, "Replies to each prompt.", ge=1, le=64)
    distinct: bool = setting(True, "Draw again, a few times, where a reply repeats another one of its prompt.")
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    max_prompt_tokens: int = setting(
        512, "Longer prompts are left out, and counted.", unit="tokens", ge=8, advanced=True
    )
    slots: int = setting(32, "Replies generated at once.", ge=1, le=1024, advanced=True)


class EvaluateSettings(Settings):
    stage: Literal["evaluate"] = "evaluate"
    policy: str = source("", "model under test: bits per byte, loss on demonstrations, replies", kind="policy")
    reward: str = source("", "reward model: accuracy on rankings, scores of replies", kind="reward")
    baseline: str = source("", "model whose replies are compared with the policy's", kind="policy")
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    max_tokens: int = setting(512, "Longest text in one forward pass.", unit="tokens", ge=16, advanced=True)
    slots: int = setting(32, "Replies generated at once.", ge=1, le=1024, advanced=True)


class ServeSettings(Settings):
    """`models` maps served names to folders; more come and go by /v1/load_lora_adapter and /v1/unload_lora_adapter."""

    stage: Literal["serve"] = "serve"
    host: str = "127.0.0.1"
    port: int = Field(8300, ge=0, le=65535)
    models: dict[str, str] = Field(default_factory=dict)
    slots: int = Field(16, ge=1, le=1024, description="replies generated at once, for each model")
    max_models: int = Field(8, ge=1, description="the least recently used model leaves when one more is loaded")
    token: str = Field("", description="when set, requests need it as a bearer token")


Config = Annotated[
    CorpusSettings | TokenizerSettings | PretrainSettings | SFTSettings | RewardSettings | PPOSettings | DPOSettings
    | KTOSettings | GRPOSettings | SampleSettings | EvaluateSettings | ServeSettings,
    Field(discriminator="stage"),
]  # fmt: skip

SETTINGS: Final[dict[Stage, type[Settings]]] = {
    "corpus": CorpusSettings,
    "tokenizer": TokenizerSettings,
    "pretrain": PretrainSettings,
    "sft": SFTSettings,
    "reward": RewardSettings,
    "ppo": PPOSettings,
    "dpo": DPOSettings,
    "kto": KTOSettings,
    "grpo": GRPOSettings,
    "sample": SampleSettings,
    "evaluate": EvaluateSettings,
    "serve": ServeSettings,
}


# -------------------------------------------------------------------------------------------------------- events.jsonl


class EventBase(BaseModel):
    model_config = ConfigDict(extra="forbid")

    time: float = Field(description="seconds since the epoch")
    step: int = 0


class Progress(EventBase):
    type: Literal["progress"] = "progress"
    total: int = Field(description="steps in all; 0 when not known")
    phase: str = Field("", description="what is going on, in two words, for a person")
    eta: float | None = Field(None, description="seconds left")


class Metric(EventBase):
    type: Literal["metric"] = "metric"
    values: dict[str, float]


class Sample(EventBase):
    type: Literal["sample"] = "sample"
    prompt: str
    reply: str
    reward: float | None = None
    detail: dict[str, float] = Field(default_factory=dict)


class Warn(EventBase):
    type: Literal["warning"] = "warning"
    message: str


class Checkpoint(EventBase):
    type: Literal["checkpoint"] = "checkpoint"
    folder: str


class Done(EventBase):
    type: Literal["done"] = "done"
    metrics: dict[str, float] = Field(default_factory=dict)


class Failed(EventBase):
    type: Literal["failed"] = "failed"
    message: str
    code: str = "failed"


Event = Annotated[Progress | Metric | Sample | Warn | Checkpoint | Done | Failed, Field(discriminator="type")]
EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Event)
CONFIG_FILE: Final[TypeAdapter[Config]] = TypeAdapter(Config)


# --------------------------------------------------------------------------------------------------------- result.json


class Result(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    stage: Stage
    metrics: dict[str, float] = Field(description="final figures; names as in the metric events")
    intervals: dict[str, tuple[float, float, int]] = Field(
        default_factory=dict, description="for some metrics: low and high end of the 95 % interval, and n"
    )
    counts: dict[str, int] = Field(default_factory=dict, description="rows read, used, left out and why")
    seconds: dict[str, float] = Field(description="wall time by phase, and total")
    seed: int
    device: str
    versions: dict[str, str]
    files: dict[str, str] = Field(description="sha256 of every file in model/ and output/, by path in the run folder")
    model: dict[str, Any] = Field(
        default_factory=dict,
        description="kind (full, adapter, reward, tokenizer), parameters, context, vocabulary, base",
    )


def read_config(run_dir: Path) -> Config:
    """The validated config of a run folder. Raises InputError, naming the field, where it does not fit."""
    path = run_dir / CONFIG
    try:
        return CONFIG_FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: there is no config.json in this run folder", code="config_missing") from None
    except ValueError as error:
        raise InputError(f"{path}: {describe(error)}", code="config_invalid") from error


def describe(error: ValueError) -> str:
    """A validation error as one line for a person: field, what is wrong, what was given."""
    details = getattr(error, "errors", None)
    if details is None:
        return str(error)
    parts = []
    for item in details():
        field = ".".join(str(part) for part in item["loc"] if part not in STAGES) or "the file"
        text = (
            "is not a known setting" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        )
        parts.append(f"{field}: {text}")
    return "; ".join(parts)
