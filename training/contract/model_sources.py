"""How a model from elsewhere is named: its place on the Hugging Face hub, a folder, or one file that holds all of it;
and which of its files are taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from training.contract.layout import InputError

GGUF: Final = ".gguf"
ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz")
MODEL_FILES: Final = (*ARCHIVES, GGUF)
PART: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
HUB_NAME: Final = re.compile(rf"{PART}(/{PART})?")
HUB_FILE: Final = re.compile(rf"({PART}/{PART})/([A-Za-z0-9][A-Za-z0-9._-]{{0,199}}\.gguf)", re.IGNORECASE)

# Weights, settings, tokenizers, chat templates, and what says who made the model. Nothing that runs as code. Mistral's
# consolidated.safetensors are its weights once more, under names that transformers does not read.
CARDS: Final = re.compile(r"LICENSE[^/]*|README\.md", re.IGNORECASE)
KEPT: Final = re.compile(
    r"(?!consolidated[^/]*\.safetensors)[^/]+\.(safetensors|safetensors\.index\.json|json|jinja|model|txt)"
    rf"|{CARDS.pattern}",
    re.IGNORECASE,
)
PICKLES: Final = re.compile(r"[^/]+\.(bin|pt|pth|ckpt|pkl|pickle)", re.IGNORECASE)
WEIGHTS: Final = ".safetensors"


def is_model_file(name: str) -> bool:
    """Whether a file of this name may hold a whole model: a packed folder, or GGUF."""
    return name.lower().endswith(MODEL_FILES)


def is_gguf(name: str) -> bool:
    return name.lower().endswith(GGUF)


def hub_place(name: str) -> tuple[str, str] | None:
    """The repository that a hub name means and, where it names a GGUF file of it (org/model/file.gguf), that file.
    None for what is no hub name."""
    if ".." in name:
        return None
    if file := HUB_FILE.fullmatch(name):
        return file[1], file[2]
    return (name, "") if HUB_NAME.fullmatch(name) else None


def pickled_only(names: list[str], source: str) -> InputError | None:
    """What to raise for a model whose weights are there as pickles only."""
    pickles = sorted(name for name in names if PICKLES.fullmatch(name))
    if not pickles or any(name.endswith(WEIGHTS) for name in names):
        return None
    return InputError(
        f"{source}: its weights are pickled ({pickles[0]}), which can run code when they are read; convert them to "
        "safetensors",
        code="model_unsupported",
    )


def wanted_files(name: str, file: str, names: Sequence[str]) -> list[str]:
    """What to fetch of a repository's files: all that is kept of a folder, or one GGUF file and the card. `file`: the
    GGUF file that was named, or empty. Raises InputError."""
    if file and file not in names:
        raise InputError(f"{name}: there is no file {file} there", code="no_model")
    ggufs = [other for other in names if is_gguf(other)]
    has_weights = any(other.endswith(WEIGHTS) and KEPT.fullmatch(other) for other in names)
    if not has_weights and not file:
        if error := pickled_only([other for other in names if "/" not in other], name):
            raise error
        if len(ggufs) > 1:
            listed = ", ".join(f"{name}/{other}" for other in ggufs[:5])
            raise InputError(f"{name}: there are several GGUF files; name one, such as {listed}", code="no_model")
        if not ggufs:
            raise InputError(f"{name}: there are no files of a model there", code="no_model")
        file = ggufs[0]
    if file:
        return [other for other in names if other in (file, "README.md", "LICENSE")]
    return [other for other in names if KEPT.fullmatch(other)]
