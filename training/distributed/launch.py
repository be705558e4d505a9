"""Which of a run's processes this one is: `accelerate launch` and torchrun say so in the environment. No torch here."""

from __future__ import annotations

import os

from training.contract import SPECS, InputError


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Which of this machine's processes: its GPU has this number."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """How many processes compute this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """How many of them share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world_size() > 1 else 1


def is_main() -> bool:
    """Whether this process is the one that owns the run folder: it alone writes there."""
    return rank() == 0


def is_sharded() -> bool:
    """Whether accelerate's configuration asks for FSDP."""
    return world_size() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def is_launched() -> bool:
    """Whether a launcher started this process, as one of a run's."""
    return "RANK" in os.environ


def check_stage(stage: str) -> None:
    """Raises InputError if the stage cannot be computed as it was launched."""
    if world_size() > 1 and SPECS[stage].processes == "one":
        raise InputError(
            f"{stage} computes in one process; start it with `python -m training {stage}`, without accelerate launch",
            code="one_process",
        )
    if is_sharded() and SPECS[stage].processes != "sharded":
        raise InputError(f"{stage} does not compute with FSDP; take a configuration without it", code="one_process")
