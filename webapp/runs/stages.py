"""The stages as people launch them: which there are, and their settings and models as a config holds them."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ValidationError

from training.contract import SPECS, Settings, describe
from webapp.errors import BadInput

LAUNCHED: Final = tuple(name for name, spec in SPECS.items() if spec.launched)

# the config's source fields ← the run's inputs
SOURCES: Final[dict[str, str]] = {
    "tokenizer": "tokenizer",
    "base": "base",
    "policy": "base",
    "reward": "reward",
    "baseline": "baseline",
}


def check_stage_name(name: str) -> None:
    """Raises BadInput for a stage that nobody launches."""
    if name not in LAUNCHED:
        raise BadInput(f"There is no stage “{name}”. Choose one of {', '.join(LAUNCHED)}.")


def extra(model: type[BaseModel], name: str) -> dict[str, Any]:
    """What the contract says of a field beyond its type: unit, advanced, source."""
    schema = model.model_fields[name].json_schema_extra
    return schema if isinstance(schema, dict) else {}


def source_fields(stage: str) -> list[str]:
    """The config fields that name models, which the site fills from the run's inputs."""
    return [name for name in SPECS[stage].settings.model_fields if "source" in extra(SPECS[stage].settings, name)]


def validated(stage: str, config: dict[str, Any]) -> Settings:
    """The stage's settings with these values. Raises BadInput that names each wrong field."""
    for name in source_fields(stage):
        if name in config:
            raise BadInput(f"{name}: choose the model as an input of the run, not among its settings.", field=name)
    try:
        return SPECS[stage].settings.model_validate(config | {"stage": stage})
    except ValidationError as error:
        fields = [".".join(str(key) for key in item["loc"]) for item in error.errors()]
        raise BadInput(
            f"{describe(error.errors(), SPECS[stage].settings)}.", code="config_invalid", fields=fields
        ) from error


def settings_of(stage: str, config: dict[str, Any]) -> dict[str, Any]:
    """All settings of a stage as JSON, the sources left out."""
    return validated(stage, config).model_dump(mode="json", exclude=set(source_fields(stage)))
