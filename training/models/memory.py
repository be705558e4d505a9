"""Checks that a model fits into memory before it is loaded, rather than let the system kill the process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Literal

import psutil
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from training.contract import (
    GB,
    MEMORY_PARTS,
    DeviceReport,
    InputError,
    LoopSettings,
    ModelFacts,
    count_memory,
    facts_of_config,
)
from training.contract.model_facts import ADAPTER_CONFIG, read_json
from training.distributed.launch import is_sharded, local_world_size, world_size
from training.run.completing import facts_named


def check_holds(source: str, *, device: torch.device, dtype: torch.dtype) -> None:
    """Raises InputError, with both figures, if the model's weights in `dtype` are more than the memory that is free."""
    needed, free = parameters_of(source) * dtype.itemsize, free_bytes(device)
    if needed > free:
        raise InputError(
            f"{source}: {needed / GB:.1f} GB are needed to hold it, and {free / GB:.1f} GB are free on {device.type}; "
            "take a smaller model or a machine with more memory",
            code="too_large",
        )


def check_fits(
    settings: LoopSettings,
    facts: ModelFacts,
    *,
    device: torch.device,
    dtype: torch.dtype,
    reward: ModelFacts | None = None,
) -> None:
    """Raises InputError, with both figures and the largest parts, if the run needs more memory than is free: counted as
    the launch form counts it, and before any model is loaded. A model whose size nobody can tell is let through."""
    if not facts.parameters:
        return
    free = free_bytes(device)
    parts = parts_of_run(settings, facts, free=free, device=device, dtype=dtype, reward=reward)
    parts.pop("runtime")  # which is there already
    needed = sum(parts.values())
    if needed <= free:
        return
    largest = sorted(parts, key=lambda name: -parts[name])[:3]
    words = ", ".join(f"{MEMORY_PARTS[name].lower()} {parts[name] / GB:.1f} GB" for name in largest)
    each = f" in each of {world_size()} processes" if world_size() > 1 else ""
    raise InputError(
        f"{settings.stage}: about {needed / GB:.1f} GB are needed{each} ({words}), and {free / GB:.1f} GB are free on "
        f"{device.type}; {', '.join(remedies(settings))}, take a smaller model or a machine with more memory",
        code="too_large",
    )


def parts_of_run(
    settings: LoopSettings,
    facts: ModelFacts,
    *,
    free: int,
    device: torch.device,
    dtype: torch.dtype,
    reward: ModelFacts | None = None,
) -> dict[str, int]:
    """Bytes by part, with the precision and the processes that the run really has."""
    kind: Literal["cuda", "cpu"] = "cuda" if device.type == "cuda" else "cpu"
    launched = {
        "precision": "bf16" if dtype is torch.bfloat16 else "fp32",
        "processes": world_size(),
        "shard": is_sharded(),
    }
    report = DeviceReport(kind=kind, name="", memory=free, free=free)
    return count_memory(settings.stage, settings.model_dump() | launched, facts, report, reward=reward)


def remedies(settings: LoopSettings) -> Iterator[str]:
    lora = getattr(settings, "lora", None)
    if lora is not None and not lora.rank:
        yield "set lora.rank to train an adapter"
    if not settings.activation_checkpointing:
        yield "set activation_checkpointing to true"
    yield "lower micro_tokens"


def facts_of_source(source: str) -> ModelFacts:
    """Of a folder or hub name, from its small files. Numbers that they do not say are 0."""
    if not source:
        return ModelFacts()
    if Path(source).is_dir():
        facts = facts_named(source)
        base = read_json(Path(source) / ADAPTER_CONFIG).get("base_model_name_or_path")
        if facts.parameters or not base:
            return facts
        source = str(base)  # of the hub
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ModelFacts()  # what is wrong is reported when it is loaded
    return facts_of_config(config.to_dict()).model_copy(update={"parameters": parameters_of(source)})


def facts_of_rewards(sources: Sequence[str]) -> ModelFacts:
    """Of the reward models in these folders, with the parameters of all members of ensembles; none without any."""
    folders = [folder for source in sources for folder in (Path(source), *sorted(Path(source).glob("member-*")))]
    if not folders:
        return ModelFacts()
    parameters = sum(parameters_of(str(folder)) for folder in folders)
    return facts_of_source(str(folders[0])).model_copy(update={"parameters": parameters})


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
