"""python -m training.models.devices: what this machine computes on, a training.contract.DeviceReport as JSON."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import torch

from training.contract import DeviceReport
from training.models.memory import free_bytes


def report_device() -> DeviceReport:
    """The device that runs of this machine take unless they name another."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return DeviceReport(
            kind="cuda",
            name=torch.cuda.get_device_name(),
            memory=total,
            free=free,
            count=torch.cuda.device_count(),
            bf16=torch.cuda.is_bf16_supported(including_emulation=False),
            cores=usable_cores(),
        )
    bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return DeviceReport(
        kind="cpu",
        name=cpu_name(),
        memory=total_memory(),
        free=free_bytes(torch.device("cpu")),
        bf16=bool(bf16),
        cores=usable_cores(),
    )


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def total_memory() -> int:
    """Bytes of this machine's memory, or of the limit of the control group that this process is in."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return min(total, int(limit))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return total


if __name__ == "__main__":
    print(report_device().model_dump_json())
