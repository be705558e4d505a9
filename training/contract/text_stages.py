"""Settings of the stages up to a reward model: from text to what people prefer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from training.contract.settings import (
    LoraWithDropoutSettings,
    Settings,
    ShardedLoopSettings,
    ThreadSettings,
    setting,
    source_field,
)


class CorpusSettings(Settings):
    stage: Literal["corpus"] = "corpus"
    min_chars: int = setting(40, "Shorter documents are dropped.", unit="characters", ge=0)
    max_chars: int = setting(
        200_000, "Longer documents are split into pieces of this length.", unit="characters", ge=100
    )
    near_duplicates: float = setting(
        0.8,
        "Documents at least this similar (Jaccard similarity of word 5-grams) count as duplicates; 1 removes exact duplicates only.",
        gt=0,
        le=1,
    )
    language: str = setting(
        "",
        "Keep only text in this language (an ISO 639-1 code such as en, de or ja); leave empty to keep all.",
        max_length=8,
        advanced=True,
    )
    strip_personal_data: bool = setting(
        True, "Replace email addresses, phone numbers and card numbers with placeholders."
    )
    heldout_fraction: float = setting(
        0.02, "Share of documents held out of training, chosen by a hash of their text.", ge=0, le=0.5
    )


class TokenizerSettings(ThreadSettings):
    stage: Literal["tokenizer"] = "tokenizer"
    vocabulary: int = setting(
        2048, "Size of the byte-level BPE vocabulary, special tokens included.", unit="tokens", ge=300, le=200_000
    )
    context: int = setting(
        1024, "Maximum context length that the tokenizer declares.", unit="tokens", ge=64, le=131_072, advanced=True
    )


class PretrainSettings(ShardedLoopSettings):
    stage: Literal["pretrain"] = "pretrain"
    tokenizer: str = source_field("", "folder or hub name of the tokenizer", kind="tokenizer")
    base: str = source_field("", "model to go on from; empty starts from random weights", kind="base")
    layers: int = setting(4, "Transformer layers.", ge=1, le=200)
    hidden: int = setting(192, "Width of the model.", ge=16, le=16_384)
    heads: int = setting(6, "Attention heads; must divide the width.", ge=1, le=256)
    kv_heads: int = setting(0, "Key-value heads; 0 means as many as attention heads.", ge=0, le=256, advanced=True)
    context: int = setting(
        256, "Tokens per training row, which is also the model's context length.", unit="tokens", ge=16, le=131_072
    )
    epochs: float = setting(1.0, "Passes over the corpus.", gt=0)
    max_steps: int = setting(
        0, "Maximum number of optimizer steps; 0 means no limit besides the epochs.", unit="steps", ge=0
    )
    learning_rate: float = setting(2e-3, "Peak learning rate.", gt=0, le=1)
    weight_decay: float = setting(0.1, "AdamW weight decay on matrices.", ge=0, le=1, advanced=True)

    @model_validator(mode="after")
    def _heads_divide(self) -> PretrainSettings:
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(f"hidden {self.hidden} must be heads {self.heads} times an even number")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {self.heads}")
        return self


class SFTSettings(ShardedLoopSettings):
    stage: Literal["sft"] = "sft"
    base: str = source_field("", "folder or hub name of the model to fine-tune", kind="base")
    epochs: float = setting(3.0, "Passes over the demonstrations.", gt=0)
    max_steps: int = setting(
        0, "Maximum number of optimizer steps; 0 means no limit besides the epochs.", unit="steps", ge=0
    )
    max_tokens: int = setting(512, "Longer conversations lose their oldest turns.", unit="tokens", ge=16)
    min_rows: int = setting(1, "Minimum number of demonstrations to start training.", ge=1, advanced=True)
    lora: LoraWithDropoutSettings = Field(default_factory=LoraWithDropoutSettings)


class RewardSettings(ShardedLoopSettings):
    stage: Literal["reward"] = "reward"
    base: str = source_field("", "model the reward model starts from, usually the SFT model", kind="base")
    epochs: float = setting(1.0, "Passes over the rankings; more than a few overfit.", gt=0)
    max_steps: int = setting(
        0, "Maximum number of optimizer steps; 0 means no limit besides the epochs.", unit="steps", ge=0
    )
    max_tokens: int = setting(
        512, "Longer pairs of prompt and reply lose the oldest turns of the prompt.", unit="tokens", ge=16
    )
    min_rows: int = setting(20, "Minimum number of rankings to start training.", ge=1, advanced=True)
    ties: Literal["half", "davidson", "drop"] = setting(
        "half", "How ties count: as half a win for each reply, by Davidson's tie model, or not at all."
    )
    ensemble: int = setting(
        1,
        "Number of reward models to train, one after the other, that score as one; where they disagree, a reply's score is uncertain.",
        unit="models",
        ge=1,
        le=16,
    )
    annotator_reliability: bool = setting(
        False,
        "Learn how reliable each annotator is, and give reliable annotators more weight.",
        advanced=True,
    )
    margin: float = setting(0.0, "Margin in the loss per unit of stated preference strength.", ge=0, advanced=True)
    centring: float = setting(
        0.01, "Weight of the penalty that keeps rewards centered at zero (Eisenstein et al. 2023).", ge=0, advanced=True
    )
    learning_rate: float = setting(1e-4, "Peak learning rate.", gt=0, le=1)
    lora: LoraWithDropoutSettings = Field(default_factory=LoraWithDropoutSettings)
