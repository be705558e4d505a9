"""What the site knows of a model's shape: kept with the model when it is made, read from its files for older ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from training.contract import ModelFacts, facts_of_folder
from webapp.errors import Unavailable
from webapp.registry.artefacts import fetch_file, open_store
from webapp.registry.models import ModelVersion

FOLLOWED: Final = ("temperature", "top_p")  # of what authors advise, the settings that a project has
SMALL_FILES: Final = (
    "config.json", "adapter_config.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json",
    "README.md",
)  # fmt: skip


def facts_of_output(folder: Path, about: dict[str, Any], parent: ModelVersion | None) -> dict[str, Any]:
    """The facts of a model that a run just made, as they are stored. `about`: the `model` part of its result."""
    base = read_facts(about.get("facts")) or (facts_of(parent) if parent else None)
    facts = facts_of_folder(folder, base)
    if facts is None:  # a tokenizer
        return {}
    if not facts.parameters:
        facts = facts.model_copy(update={"parameters": int(about.get("parameters") or 0)})
    return facts.model_dump()


def facts_of(model: ModelVersion) -> ModelFacts | None:
    """None if its files do not say, or cannot be read now."""
    if model.kind == ModelVersion.Kind.TOKENIZER:
        return None
    if facts := read_facts(model.facts):
        return facts
    base = facts_of(model.parent) if model.kind == ModelVersion.Kind.ADAPTER and model.parent else None
    try:
        facts = facts_in_store(model, base)
    except (Unavailable, OSError):
        return None
    if facts is None:
        return None
    return facts.model_copy(
        update={
            "parameters": facts.parameters or model.parameters or 0,
            "context": facts.context or model.context or 0,
        }
    )


def facts_in_store(model: ModelVersion, base: ModelFacts | None) -> ModelFacts | None:
    """Of a local folder as it is; of a store elsewhere the small files only, whose weights are not fetched for this."""
    fs, path = open_store(model.artefact)
    if isinstance(fs, LocalFileSystem):
        return facts_of_folder(Path(path), base)
    with tempfile.TemporaryDirectory() as folder:
        for name in SMALL_FILES:
            if name in model.files:
                fetch_file(f"{model.artefact}/{name}", Path(folder) / name)
        return facts_of_folder(Path(folder), base)


def read_facts(stored_facts: Any) -> ModelFacts | None:
    if not stored_facts:
        return None
    try:
        return ModelFacts.model_validate(stored_facts)
    except ValidationError:
        return None  # of a version that said it otherwise: the files say it again


def advised_sampling(model: ModelVersion) -> dict[str, float]:
    """What the model's authors advise for chats and a project's chats can follow, where it is not so already."""
    facts = facts_of(model)
    advised = facts.sampling if facts else {}
    return {
        name: advised[name] for name in FOLLOWED if name in advised and advised[name] != getattr(model.project, name)
    }


def sampling_words(sampling: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in sampling.items())
