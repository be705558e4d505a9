"""config.json: the settings of one stage, told apart by their `stage`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from training.contract.policy_stages import DPOSettings, GRPOSettings, KTOSettings, PPOSettings
from training.contract.settings import Settings
from training.contract.stages import CONFIG, STAGES, InputError, Stage
from training.contract.text_stages import (
    CorpusSettings,
    PretrainSettings,
    RewardSettings,
    SFTSettings,
    TokenizerSettings,
)
from training.contract.using_stages import EvaluateSettings, SampleSettings, ServeSettings

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

CONFIG_FILE: Final[TypeAdapter[Config]] = TypeAdapter(Config)


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
        if sentence := about_stage(item):
            parts.append(sentence)
            continue
        field = ".".join(str(part) for part in item["loc"] if part not in STAGES) or "the file"
        text = (
            "is not a known setting" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        )
        parts.append(f"{field}: {text}")
    return "; ".join(parts)


def about_stage(item: dict[str, Any]) -> str:
    """What is wrong with `stage`, which says what all the other settings are of; "" where something else is wrong."""
    if item["type"] == "union_tag_not_found":
        return 'stage: it is missing; say what the settings are of, as in "stage": "serve"'
    if item["type"] == "union_tag_invalid":
        return f"stage: there is no {str(item['ctx']['tag'])[:40]!r}; the stages are {', '.join(STAGES)}"
    return ""
