"""Where and in what precision a run computes."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers.utils.logging import disable_progress_bar

from training.contract import ComputeSettings, InputError, LoopSettings, ModelFacts, Settings
from training.contract.memory import MIN_BF16_WIDTH
from training.distributed.launch import is_sharded, local_rank, world_size
from training.models.checks import damaged_folder
from training.models.memory import check_fits, facts_of_rewards, facts_of_source
from training.run.placement import place_base
from training.run.run import Run

ADAPTER: Final = "adapter_config.json"


@dataclass(frozen=True)
class Compute:
    """Where and in what precision a run computes."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16)


def prepare(run: Run[Any]) -> Compute:
    """Seed, threads, device and precision from the run's settings; call it once, before any tensor is made. Raises
    InputError if the device or the memory is not there."""
    settings: ComputeSettings = run.config
    disable_progress_bar()  # transformers draws one for each file, into the log
    torch.manual_seed(getattr(settings, "seed", 0))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda is asked for, but torch sees no GPU on this machine", code="no_device")
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    check_devices(settings, cuda=cuda)
    if cuda and world_size() > 1:
        take_gpu(local_rank())
    device = torch.device("cuda" if cuda else "cpu")
    run.device = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
    if world_size() > 1:
        run.device += f", {world_size()} processes"
    precision = settings.precision if isinstance(settings, LoopSettings) else "auto"
    bf16 = bf16_is_faster(device, width_of(settings)) if precision == "auto" else precision == "bf16"
    dtype = torch.bfloat16 if bf16 else torch.float32
    if isinstance(settings, LoopSettings):
        facts = facts_of_source(str(getattr(settings, "policy", "") or getattr(settings, "base", "")))
        check_fits(settings, facts, device=device, dtype=dtype, reward=reward_facts(settings))
    return Compute(device, dtype)


def reward_facts(settings: LoopSettings) -> ModelFacts:
    """Of the reward models that score replies; without parameters if there are none."""
    source = getattr(settings, "reward", "")
    sources = [source] if isinstance(source, str) else source
    return facts_of_rewards([name for name in sources if name and Path(name).is_dir()])  # others are functions


def check_devices(settings: Settings, *, cuda: bool) -> None:
    """Raises InputError if a run asks for several processes where they would only share the cores of one CPU, or for a
    sharded model where a launcher started it without FSDP."""
    if not isinstance(settings, LoopSettings) or settings.processes < 2:
        return
    if not cuda and not cpu_processes():
        raise InputError(
            "processes: this run computes on a CPU, whose cores one process uses already; set it to 1", code="no_device"
        )
    if getattr(settings, "shard", False) and not is_sharded():
        raise InputError(
            "shard: it was launched without FSDP; take training/accelerate/fsdp.yaml, or start `python -m training`, "
            "which launches the processes itself",
            code="config_invalid",
        )


def cpu_processes() -> bool:
    """Whether several processes may share a CPU, for tests of what several GPUs do."""
    return os.environ.get("TUTELAGE_CPU_PROCESSES") == "1"


def take_gpu(number: int) -> None:
    """What this process means by "cuda" from now on. Raises InputError if the machine has no such GPU."""
    if number >= (gpu_count := torch.cuda.device_count()):
        raise InputError(f"more processes were launched than there are GPUs here, {gpu_count}", code="no_device")
    torch.cuda.set_device(number)


def bf16_is_faster(device: torch.device, width: int) -> bool:
    """Whether a model of this width is to learn in bf16. A CPU without bf16 instructions is slower with it than with
    fp32 (measured on AVX2, a ninth). One with AMX gains below MIN_BF16_WIDTH, too, but the sample project's model, of
    width 160, was tuned and measured in fp32."""
    if device.type == "cuda":  # Turing and Volta only emulate it, slower than fp32
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16() and width >= MIN_BF16_WIDTH


def cpu_has_bf16() -> bool:
    """Whether it has instructions for products in bf16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def width_of(settings: Settings) -> int:
    """The hidden size of the model that a run is about; of one that is not in a folder here, MIN_BF16_WIDTH."""
    source = str(getattr(settings, "policy", "") or getattr(settings, "base", "") or getattr(settings, "reward", ""))
    if not source:
        return int(getattr(settings, "hidden", MIN_BF16_WIDTH))
    try:
        config = json.loads((Path(adapter_base(source) or source) / "config.json").read_text())
        return int(config.get("hidden_size") or config.get("n_embd") or MIN_BF16_WIDTH)
    except (OSError, ValueError):
        return MIN_BF16_WIDTH  # what is wrong with the folder is reported where it is loaded


def adapter_base(source: str) -> str:
    """The base of an adapter folder, also after both moved; empty where `source` is a whole model."""
    path = Path(source) / ADAPTER
    if not source or not path.exists():
        return ""
    if not (Path(source) / "adapter_model.safetensors").exists():
        raise damaged_folder(source, "adapter", OSError("adapter_model.safetensors is missing"))
    try:
        return place_base(str(json.loads(path.read_text())["base_model_name_or_path"]), source)
    except (ValueError, KeyError) as error:
        raise damaged_folder(source, "adapter", error) from error
