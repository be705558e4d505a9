"""What each stage of training takes from the site, and where in its config and data folder it goes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

from pydantic import BaseModel, ValidationError

from training.contract import SETTINGS, STAGES, LoopSettings, Settings, Stage, describe
from webapp.errors import BadInput

# Stages that take gradient steps, and so have curves.
LEARNING: Final = frozenset(stage for stage in STAGES if issubclass(SETTINGS[stage], LoopSettings))
LAUNCHED: Final[tuple[Stage, ...]] = tuple(stage for stage in STAGES if stage != "serve")


class Needs(NamedTuple):
    """True: cannot start without it; False: may have it; None: does not take it. `snapshots` is by kind; a stage that
    learns from any of several kinds, `learns_from_any`, needs at least one of them."""

    about: str
    snapshots: dict[str, bool] = {}
    learns_from_any: bool = False
    base: bool | None = None
    tokenizer: bool | None = None
    reward: bool | None = None
    baseline: bool | None = None
    corpus_run: bool | None = None


NEEDS: Final[dict[Stage, Needs]] = {
    "corpus": Needs("Clean collected text, drop copies and private data.", {"documents": True}),
    "tokenizer": Needs("Learn how to cut text into tokens.", corpus_run=True),
    "pretrain": Needs("Learn language from cleaned text.", base=False, tokenizer=False, corpus_run=True),
    "sft": Needs("Learn to answer from demonstrations.", {"demonstrations": True}, base=True),
    "reward": Needs("Learn from rankings what people prefer.", {"rankings": True}, base=True),
    "ppo": Needs(
        "Improve a model by what its reward model prefers.", {"prompts": True}, base=True, reward=True, corpus_run=False
    ),
    "dpo": Needs("Improve a model from rankings, without a reward model.", {"rankings": True}, base=True),
    "kto": Needs(
        "Improve a model from what people found good and bad.",
        {"rankings": False, "judgments": False},
        learns_from_any=True,
        base=True,
    ),
    "grpo": Needs(
        "Improve a model by comparing its replies to one prompt, scored by a reward model.",
        {"prompts": True},
        base=True,
        reward=True,
    ),
    "evaluate": Needs(
        "Measure models on what was held out of training.",
        {"demonstrations": False, "rankings": False, "prompts": False},
        base=False,
        reward=False,
        baseline=False,
        corpus_run=False,
    ),
    "sample": Needs(
        "Let a model reply to prompts, so that people rank its replies.", {"prompts": True}, base=True, reward=False
    ),
}

# data/<file> from a snapshot's part (train, heldout, all), by stage; evaluation only ever sees what was held out.
# heldout has the rows of the stage's first kind, heldout_<kind> those of another.
DATA_FILES: Final[dict[Stage, dict[str, str]]] = {
    "corpus": {"documents": "train"},
    "sft": {"demonstrations": "train", "heldout": "heldout"},
    "reward": {"rankings": "train", "heldout": "heldout"},
    "dpo": {"rankings": "train", "heldout": "heldout"},
    "kto": {"rankings": "train", "judgments": "train", "heldout": "heldout", "heldout_judgments": "heldout"},
    "grpo": {"prompts": "train", "heldout": "heldout"},
    "ppo": {"prompts": "train", "heldout": "heldout"},
    "sample": {"prompts": "all"},
    "evaluate": {"demonstrations": "heldout", "rankings": "heldout", "prompts": "heldout"},
}

# data/<file> from the corpus run's output/<file>, by stage
CORPUS_FILES: Final[dict[Stage, dict[str, str]]] = {
    "tokenizer": {"corpus": "corpus.jsonl"},
    "pretrain": {"corpus": "corpus.jsonl", "heldout": "heldout.jsonl"},
    "ppo": {"corpus": "corpus.jsonl"},
    "evaluate": {"text": "heldout.jsonl"},
}

# the config's source fields ← the run's inputs
SOURCES: Final[dict[str, str]] = {
    "tokenizer": "tokenizer",
    "base": "base",
    "policy": "base",
    "reward": "reward",
    "baseline": "baseline",
}


def stage_named(name: str) -> Stage:
    """Raises BadInput for a stage that nobody launches."""
    if name not in LAUNCHED:
        raise BadInput(f"There is no stage “{name}”. Choose one of {', '.join(LAUNCHED)}.")
    return cast("Stage", name)


def extra(model: type[BaseModel], name: str) -> dict[str, Any]:
    """What the contract says of a field beyond its type: unit, advanced, source."""
    schema = model.model_fields[name].json_schema_extra
    return schema if isinstance(schema, dict) else {}


def source_fields(stage: Stage) -> list[str]:
    """The config fields that name models, which the site fills from the run's inputs."""
    return [name for name in SETTINGS[stage].model_fields if "source" in extra(SETTINGS[stage], name)]


def validated(stage: Stage, config: dict[str, Any]) -> Settings:
    """The stage's settings with these values. Raises BadInput that names each wrong field."""
    for name in source_fields(stage):
        if name in config:
            raise BadInput(f"{name}: choose the model as an input of the run, not among its settings.", field=name)
    try:
        return SETTINGS[stage].model_validate(config | {"stage": stage})
    except ValidationError as error:
        fields = [".".join(str(part) for part in item["loc"]) for item in error.errors()]
        raise BadInput(f"{describe(error.errors(), SETTINGS[stage])}.", code="config_invalid", fields=fields) from error


def settings_of(stage: Stage, config: dict[str, Any]) -> dict[str, Any]:
    """All settings of a stage as JSON, the sources left out."""
    return validated(stage, config).model_dump(mode="json", exclude=set(source_fields(stage)))
