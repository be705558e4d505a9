"""python -m training.models.devices: what this machine computes on, a training.contract.DeviceReport as JSON."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch

from training.contract import TRACKERS, DeviceReport
from training.models.compute import cpu_has_bf16, cpu_processes
from training.models.memory import free_bytes, group_bytes


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
            bitsandbytes=has_bitsandbytes(),
            cores=usable_cores(),
            trackers=installed_trackers(),
        )
    return DeviceReport(
        kind="cpu",
        name=cpu_name(),
        memory=total_memory(),
        free=free_bytes(torch.device("cpu")),
        count=usable_cores() if cpu_processes() else 1,
        bf16=cpu_has_bf16(),
        bitsandbytes=has_bitsandbytes(),
        cores=usable_cores(),
        trackers=installed_trackers(),
    )


def installed_trackers() -> list[str]:
    return [name for name in TRACKERS if find_spec(name) is not None]


def has_bitsandbytes() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


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
    total, limit = int(psutil.virtual_memory().total), group_bytes("memory.max")
    return total if limit is None else min(total, limit)


if __name__ == "__main__":
    print(report_device().model_dump_json())
