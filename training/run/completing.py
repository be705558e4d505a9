"""What a config leaves out: filled in from a recipe, and the learning rate by the size of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from training.contract import (
    SPECS,
    LoopSettings,
    ModelFacts,
    Occasion,
    Settings,
    facts_of_folder,
    has_proposals,
    propose,
    read_recipes,
    recipe_settings,
)
from training.contract.model_facts import ADAPTER_CONFIG, read_json
from training.run.placement import place_base

S = TypeVar("S", bound=Settings)
RATES: Final = ("learning_rate", "value_learning_rate")


def complete_config(config: S, recipe: str = "") -> tuple[S, list[str]]:
    """The settings, and what to tell of those that were filled in. What the config names stays as it is.

    Of a model of real size only the learning rates are filled in, whose defaults would ruin it; the site, which knows
    data and device, proposes the rest. Raises InputError for a recipe that has nothing for the stage.
    """
    if recipe:
        named = config.model_dump(exclude_unset=True)
        settings = merged_settings(recipe_settings(recipe, config.stage), named)
        completed: S = SPECS[config.stage].settings.model_validate(settings)  # type: ignore[assignment]
        return completed, [
            f"settings that config.json leaves out are those of the recipe {read_recipes()[recipe].title}"
        ]
    source = str(getattr(config, "policy", "") or getattr(config, "base", ""))
    if not isinstance(config, LoopSettings) or not source:
        return config, []
    facts = facts_named(source)
    if not has_proposals(config.stage, facts):
        return config, []
    lora = getattr(config, "lora", None)
    chosen: dict[str, Any] = {"lora.rank": lora.rank} if lora is not None else {}
    if "loss" in config.model_fields_set:
        chosen["loss"] = getattr(config, "loss", "")
    proposals = propose(Occasion(config.stage, facts, chosen=chosen))
    new = {name: proposals[name] for name in RATES if name in proposals and name not in config.model_fields_set}
    remarks = [f"{name} is {value:g}, which config.json leaves out: {why}" for name, (value, why) in new.items()]
    return config.model_copy(update={name: proposal.value for name, proposal in new.items()}), remarks


def facts_named(source: str) -> ModelFacts:
    """Of a folder here, or of an adapter's base; of a hub name nothing is known."""
    folder = Path(source)
    adapter = read_json(folder / ADAPTER_CONFIG)
    if adapter:
        base = place_base(str(adapter.get("base_model_name_or_path", "")), source)
        return facts_of_folder(folder, facts_of_folder(Path(base))) or ModelFacts()
    return facts_of_folder(folder) or ModelFacts()


def merged_settings(settings: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested settings, where those of `over` win."""
    merged = dict(settings)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = merged_settings(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
