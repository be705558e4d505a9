"""Recipes: settings of the stages for a usual size of model on a usual machine, read from training/recipes/*.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.contract.devices import DeviceReport
from training.contract.layout import InputError
from training.contract.model_facts import ModelFacts

FOLDER: Final = Path(__file__).parents[1] / "recipes"


class RecipeDevice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["cuda", "cpu"]
    memory_gb: int = Field(gt=0)
    bf16: bool

    def report(self) -> DeviceReport:
        memory = self.memory_gb * 10**9
        return DeviceReport(kind=self.kind, name=f"{self.memory_gb} GB", memory=memory, free=memory, bf16=self.bf16)


class Recipe(BaseModel):
    """`stages`: what differs from each stage's defaults, nested as in config.json. `device` and `model` are what it is
    counted for; it asks for no particular model."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str
    title: str
    about: str
    device: RecipeDevice
    model: ModelFacts
    stages: dict[str, dict[str, Any]]


@cache
def read_recipes() -> dict[str, Recipe]:
    """By name, which is the file's, the smallest device and model first. A file that is not a recipe is an error."""
    recipes = [
        Recipe(name=path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))) for path in FOLDER.glob("*.toml")
    ]
    return {
        recipe.name: recipe
        for recipe in sorted(recipes, key=lambda recipe: (recipe.device.memory_gb, recipe.model.parameters))
    }


def recipe_settings(name: str, stage: str) -> dict[str, Any]:
    """What a recipe sets for a stage. Raises InputError if there is no such recipe, or it says nothing of the stage."""
    recipes = read_recipes()
    if name not in recipes:
        raise InputError(f"there is no recipe {name!r}; the recipes are {', '.join(recipes)}", code="no_recipe")
    if stage not in recipes[name].stages:
        stages = ", ".join(recipes[name].stages)
        raise InputError(f"the recipe {name} has no settings for {stage}, only for {stages}", code="no_recipe")
    return recipes[name].stages[stage]
