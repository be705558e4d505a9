"""The files of a model from elsewhere: copied, and whether the disk has room for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from training.contract import InputError

BLOCK: Final = 16 << 20
SPARE: Final = 512 << 20  # bytes of a disk that are left to others
Step = Callable[[int], None]  # told how many more bytes are done; it may raise


def check_room(folder: Path, needed: int, purpose: str) -> None:
    """Raises InputError, with both figures, if the disk of `folder` has not got `needed` bytes and some to spare."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise InputError(
            f"{needed / 1e9:.1f} GB are needed on the training machine's disk {purpose}, and {free / 1e9:.1f} GB are "
            f"free ({SPARE / 1e9:.1f} GB of them stay free); make room, or take a smaller model",
            code="disk_full",
        )


def place_file(source: Path, target: Path, step: Step) -> None:
    """Give a file a second name where one disk holds both, else copy it. Files of others are copied: a link would
    follow every later change of theirs."""
    try:
        os.link(source, target)
    except OSError:
        copy_file(source, target, step)
    else:
        step(target.stat().st_size)


def copy_file(source: Path, target: Path, step: Step) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(BLOCK):
            write.write(block)
            step(len(block))
