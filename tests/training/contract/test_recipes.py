from __future__ import annotations

import pytest

from training.contract import SPECS, InputError, count_memory, read_recipes, recipe_settings

CASES = [(name, stage) for name, recipe in read_recipes().items() for stage in recipe.stages]


def test_there_is_one_recipe_for_each_usual_machine_the_smallest_first() -> None:
    assert list(read_recipes()) == ["laptop-135m", "gpu-24gb-1b", "gpu-24gb-8b", "gpu-80gb-8b"]


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_a_recipe_s_settings_are_the_stage_s_own(name: str, stage: str) -> None:
    settings = SPECS[stage].settings.model_validate(recipe_settings(name, stage))
    assert settings.model_dump()["learning_rate"] <= SPECS[stage].settings.model_fields["learning_rate"].default


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_a_recipe_fits_its_device_by_count(name: str, stage: str) -> None:
    recipe = read_recipes()[name]
    settings = SPECS[stage].settings.model_validate(recipe_settings(name, stage)).model_dump()
    parts = count_memory(stage, settings, recipe.model, recipe.device.report(), reward=recipe.model)
    assert sum(parts.values()) < 0.9 * recipe.device.report().memory, parts
    if "max_tokens" in settings:
        assert settings["max_tokens"] <= settings["micro_tokens"], "the longest row must go through one pass"


def test_what_no_recipe_says_is_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match="the recipes are laptop-135m, gpu-24gb-1b, gpu-24gb-8b, gpu-80gb-8b"):
        recipe_settings("phone", "sft")
    with pytest.raises(InputError, match="no settings for corpus, only for sft, reward"):
        recipe_settings("laptop-135m", "corpus")
