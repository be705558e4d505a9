"""Checkpoints: what a learner needs to go on, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from training.distributed.collectives import barrier
from training.run.run import Run

STATE: Final = "state.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    with (folder / STATE).open("wb") as file:  # torch's own writer does not say why a write failed
        torch.save(state, file)


def save_checkpoint(run: Run[Any], step: int, state: dict[str, Any]) -> None:
    """The main process writes, the others wait until it has."""
    if run.main:
        with run.checkpoint(step) as folder:
            save_state(folder, state)
    barrier()
    run.saved = step


def load_state(folder: Path) -> dict[str, Any]:
    """Tensors, numbers, strings and containers of them only: nothing else is unpickled."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state
