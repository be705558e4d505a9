"""The settings that are proposed for a run, from what the project knows of its model, its data and the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from training.contract import (
    SPECS,
    InputError,
    ModelFacts,
    Occasion,
    Proposal,
    has_proposals,
    propose,
    read_recipes,
    recipe_settings,
)
from webapp.accounts.models import Project
from webapp.datasets.models import Snapshot
from webapp.datasets.selectors import snapshots_of
from webapp.datasets.services.snapshots import count_rows
from webapp.errors import BadInput
from webapp.registry.facts import facts_of
from webapp.registry.models import ModelVersion
from webapp.runs.estimates import Unfrozen, corpus_characters
from webapp.runs.machines import newest_machine
from webapp.runs.models import Run
from webapp.runs.selectors import flattened

CHARACTERS_PER_TOKEN: Final = 4.0
MAX_COUNTED: Final = 5000  # rows; from here on a batch as large as the recipes' leaves steps enough
USUAL_CHARACTERS: Final[dict[str, float]] = {"rankings": 2500, "prompts": 300}  # of a row
OTHER_CHARACTERS: Final = 1200.0


class Amount(NamedTuple):
    """How much a run learns from; 0 is not known."""

    rows: int = 0
    tokens: float = 0.0


def learned_amount(
    project: Project,
    stage: str,
    *,
    snapshots: Iterable[Snapshot] = (),
    freeze: Iterable[str] = (),
    corpus_run: Run | None = None,
) -> Amount:
    """Of the snapshots, of what a new one of the kinds to `freeze` would hold, and of a corpus run's text."""
    rows, characters = 0, 0.0
    for snapshot in snapshots:
        if SPECS[stage].learns_from(snapshot.kind):
            rows += snapshot.counts.get("train", 0)
            characters += snapshot.counts.get("train", 0) * row_length(snapshot)
    for kind in freeze:
        count = count_rows(project=project, kind=kind, split="train", at_most=MAX_COUNTED)
        newest = snapshots_of(project, kind=kind).first()
        rows += count
        characters += count * (row_length(newest) if newest else usual_length(kind))
    if corpus_run is not None and stage == "pretrain":
        characters += corpus_characters(corpus_run)
        rows = max(1, int(characters / OTHER_CHARACTERS))
    tokens = characters / CHARACTERS_PER_TOKEN
    if stage == "dpo":  # learns from every pair of a ranking's replies
        replies = project.replies_to_rank
        return Amount(rows * replies * (replies - 1) // 2, tokens * (replies - 1))
    return Amount(rows, tokens)


def usual_length(kind: str) -> float:
    """Characters of a row, where no snapshot says how long the project's are."""
    return USUAL_CHARACTERS.get(kind, OTHER_CHARACTERS)


def unfrozen_rows(project: Project, kinds: Iterable[str]) -> Unfrozen:
    """About what first snapshots of these kinds would hold."""
    characters, train, heldout = 0.0, 0, 0
    for kind in kinds:
        learned = count_rows(project=project, kind=kind, split="train", at_most=MAX_COUNTED)
        heldout += count_rows(project=project, kind=kind, split="heldout", at_most=MAX_COUNTED)
        train += learned
        characters += learned * usual_length(kind)
    return Unfrozen(characters, train, heldout)


def row_length(snapshot: Snapshot) -> float:
    """Characters of one row, on average."""
    count = snapshot.counts.get("train", 0) + snapshot.counts.get("heldout", 0)
    return float(snapshot.counts.get("characters", 0)) / count if count else OTHER_CHARACTERS


def base_facts(stage: str, base: ModelVersion | None, base_name: str) -> ModelFacts | None:
    """Of the model that a run starts from; one that is only named has no size. None if there is none to train."""
    if base is not None:
        return facts_of(base)
    return ModelFacts() if base_name.strip() and not SPECS[stage].names_base else None


def proposals_for(
    stage: str,
    facts: ModelFacts | None,
    amount: Callable[[], Amount],
    chosen: Mapping[str, Any],
    *,
    recipe: str = "",
) -> dict[str, Proposal]:
    """By dotted name, for the settings that are not among the `chosen` ones: those of the recipe, or else what suits
    the model. Empty if there is neither. Data is counted only if it matters. Raises BadInput for an unknown recipe."""
    if recipe:
        return proposals_of_recipe(recipe, stage, chosen)
    if facts is None or not has_proposals(stage, facts):
        return {}
    machine, learned = newest_machine(), amount()
    return propose(
        Occasion(
            stage,
            facts,
            device=machine[1] if machine else None,
            tokens=learned.tokens,
            rows=learned.rows,
            chosen=chosen,
        )
    )


def proposals_of_recipe(name: str, stage: str, chosen: Mapping[str, Any]) -> dict[str, Proposal]:
    try:
        settings = flattened(recipe_settings(name, stage))
    except InputError as error:
        raise BadInput(f"recipe: {error.message}.", field="recipe") from error
    origin = f"the recipe “{read_recipes()[name].title}”"
    return {key: Proposal(value, origin) for key, value in settings.items() if key not in chosen}


def with_proposals(config: Mapping[str, Any], proposals: Mapping[str, Proposal]) -> dict[str, Any]:
    """Nested settings with each proposal under its dotted name."""
    whole = {name: dict(value) if isinstance(value, dict) else value for name, value in config.items()}
    for name, proposal in proposals.items():
        *path, leaf = name.split(".")
        section = whole
        for key in path:
            section = section.setdefault(key, {})
        section[leaf] = proposal.value
    return whole


def recorded(proposals: Mapping[str, Proposal]) -> dict[str, str]:
    """As a run keeps them."""
    return {name: proposal.why for name, proposal in proposals.items()}
