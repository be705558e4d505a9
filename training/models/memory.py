"""Checks that a model fits into memory before it is loaded, rather than let the system kill the process."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Final

import psutil
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from training.contract import InputError
from training.distributed.launch import is_sharded, local_world_size, world_size

WHOLE: Final = 4  # bytes of a weight
LEARNING: Final = 16  # bytes for each parameter that learns: fp32 weight and gradient, and AdamW's two moments
GB: Final = 1e9


def check_fits(
    source: str,
    *,
    device: torch.device,
    learning: bool,
    dtype: torch.dtype,
    adapter: bool = False,
    beside: int = 0,
) -> None:
    """Raises InputError, with both figures, where the model's weights, and where it learns its gradients and optimizer,
    are more than the memory that is free. `beside`: bytes for each parameter that frozen copies will take, too. With
    FSDP a process holds its part of these, and the weights whole while it evaluates and saves. Activations are not
    counted: micro_tokens bounds them."""
    count = parameters_of(source)
    learns = WHOLE + LEARNING / world_size() if is_sharded() else LEARNING
    size = (learns if learning and not adapter else dtype.itemsize) + beside
    free = free_bytes(device)
    if count * size <= free:
        return
    way = "train every weight of it; set lora.rank to train an adapter," if learning and not adapter else "hold it;"
    needed, available = f"{count * size / GB:.1f} GB", f"{free / GB:.1f} GB"
    raise InputError(
        f"{source}: {needed} are needed to {way} and {available} are free on {device.type}; take a smaller model or a "
        "machine with more memory",
        code="too_large",
    )


def parameters_of(source: str) -> int:
    """How many parameters the model of a folder or hub name has, from the headers of its weights or, where there are
    none here, from its config. 0 if neither says: what is wrong is reported when it is loaded."""
    folder = Path(source)
    try:
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if files:
            return sum(map(elements, files))
        with torch.device("meta"):
            return sum(
                p.numel() for p in AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)).parameters()
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return 0


def elements(path: Path) -> int:
    """Numbers in a safetensors file, of which only the header is read."""
    with safe_open(path, framework="pt") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 (no mapping)


def free_bytes(device: torch.device) -> int:
    """What a process may still take: of the GPU, or of the machine within the limit of its control group, which it
    shares with the run's other processes here."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limit, used = group_bytes("memory.max"), group_bytes("memory.current")
    if limit is not None and used is not None:
        free = min(free, limit - used)
    return free // local_world_size()


def group_bytes(name: str) -> int | None:
    """A figure of the control group that this process is in; None without one (no Linux), or if it sets no limit."""
    try:
        figure = Path(f"/sys/fs/cgroup/{name}").read_text().strip()
    except OSError:
        return None
    return int(figure) if figure.isdecimal() else None
