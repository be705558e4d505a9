"""How a model from elsewhere is named: its place on the Hugging Face hub, a folder, or one file that holds all of it."""

from __future__ import annotations

import re
from typing import Final

GGUF: Final = ".gguf"
ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz")
MODEL_FILES: Final = (*ARCHIVES, GGUF)
PART: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
HUB_NAME: Final = re.compile(rf"{PART}(/{PART})?")
HUB_FILE: Final = re.compile(rf"({PART}/{PART})/([A-Za-z0-9][A-Za-z0-9._-]{{0,199}}\.gguf)", re.IGNORECASE)


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
