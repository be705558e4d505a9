"""AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), its moments in fp32 or in 8 bits."""

from __future__ import annotations

from typing import Any

import torch

from training.contract import InputError, LoopSettings
from training.distributed.launch import is_sharded
from training.models.quantization import bitsandbytes

PROBE = 8192  # numbers; fewer than 4096 keep moments in fp32


def make_optimizer(groups: list[dict[str, Any]], settings: LoopSettings, device: torch.device) -> torch.optim.Optimizer:
    """Raises InputError where moments in 8 bits cannot be had."""
    betas = (0.9, settings.beta2)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=betas, fused=True)
    if is_sharded():
        raise InputError(
            "optimizer: adamw_8bit does not compute with FSDP, which shards the moments instead; set it to adamw",
            code="config_invalid",
        )
    library = bitsandbytes("optimizer: adamw_8bit")
    check_works(library, device)
    optimizer: torch.optim.Optimizer = library.optim.AdamW8bit(groups, betas=betas)
    return optimizer


def check_works(library: Any, device: torch.device) -> None:
    """Raises InputError if the installed library has no such step for the device."""
    parameter = torch.nn.Parameter(torch.zeros(PROBE, device=device))
    parameter.grad = torch.ones_like(parameter)
    try:
        library.optim.AdamW8bit([parameter]).step()
    except Exception as error:  # of the library's own kinds, and of those of what it is built on
        raise InputError(
            f"optimizer: adamw_8bit does not work on {device.type} with the bitsandbytes that is installed here "
            f"({str(error)[:200]}); install a newer one, or set optimizer to adamw",
            code="no_library",
        ) from error
