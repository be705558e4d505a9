"""A model that is named by its place on the Hugging Face hub, as a folder on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download

from training.models.checks import damaged_folder

FILES: Final = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.txt"]
NOT_NEEDED: Final = ["*/*", "consolidated*"]  # other formats of the same weights


def model_folder(source: str) -> str:
    """`source` where it is a folder, else the files of the hub's model of that name: those of an earlier download, or
    new ones. Raises InputError if they cannot be had."""
    if source.startswith(("/", ".", "~")) or Path(source).is_dir():
        return source
    try:
        return snapshot_download(source, allow_patterns=FILES, ignore_patterns=NOT_NEEDED)
    except (OSError, ValueError) as error:
        raise damaged_folder(source, "model", error) from error
