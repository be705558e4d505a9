"""config.json: the settings of one stage, told apart by their `stage`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Union

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from training.contract.layout import CONFIG, InputError
from training.contract.settings import Settings
from training.contract.specs import SPECS, STAGES
from training.contract.wording import problem_message, problems

AnySettings: Any = Annotated[Union[tuple(spec.settings for spec in SPECS.values())], Field(discriminator="stage")]  # noqa: UP007  # made at run time
CONFIG_FILE: Final[TypeAdapter[Settings]] = TypeAdapter(AnySettings)


def read_config(run_dir: Path) -> Settings:
    """The validated config of a run folder. Raises InputError, naming the field, where it does not fit."""
    path = run_dir / CONFIG
    try:
        return CONFIG_FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: there is no config.json in this run folder", code="config_missing") from None
    except ValidationError as error:
        raise InputError(f"{path}: {describe_config(error)}", code="config_invalid") from error


def describe_config(error: ValidationError) -> str:
    """What is wrong with config.json, whose `stage` says what all the other settings are of."""
    details = error.errors()
    if sentences := [about_stage(item) for item in details if item["type"].startswith("union_tag")]:
        return "; ".join(sentences)
    if not (path := details[0]["loc"]):
        return f"the file: {problem_message(details[0], 'an object')}"
    settings = SPECS[str(path[0])].settings
    return describe([{**item, "loc": item["loc"][1:]} for item in details], settings)


def describe(details: Iterable[Mapping[str, Any]], kind: type[BaseModel]) -> str:
    """Validation errors as one line for a person: field, what is expected, what was given."""
    return "; ".join(problem.sentence for problem in problems(details, kind))


def about_stage(item: Mapping[str, Any]) -> str:
    if item["type"] == "union_tag_not_found":
        return 'stage: it is missing; say what the settings are of, as in "stage": "serve"'
    return f"stage: there is no {str(item['ctx']['tag'])[:40]!r}; the stages are {', '.join(STAGES)}"
