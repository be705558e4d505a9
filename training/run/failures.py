"""Turns whatever stopped a run into the sentence a person needs."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Final

from training.contract import CONFIG, SPECS, TrainingError
from training.distributed.launch import world_size

LOST = "process_lost"
# as gloo and NCCL say it, and the store at which processes meet
BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "Socket Timeout", "TCPStore")
# What torch and safetensors say of a write that the system refused, without the reason
WRITE_FAILED: Final = ("file write failed", "iostream error", "unexpected pos", "File too large")


# Settings that bound how much memory a run takes.
MEMORY_SETTINGS: Final[tuple[str, ...]] = ("micro_tokens", "slots", "prompts_per_step", "samples_per_prompt")


def memory_settings(folder: Path) -> list[str]:
    """The settings of this run's stage that bound its memory."""
    try:
        stage = json.loads((folder / CONFIG).read_text())["stage"]
        fields = SPECS[stage].settings.model_fields
    except (OSError, ValueError, KeyError, TypeError):
        return [MEMORY_SETTINGS[0]]
    named = [name for name in MEMORY_SETTINGS if name in fields]
    return [*named, "sampling.max_new_tokens"] if "sampling" in fields else named or [MEMORY_SETTINGS[0]]


def explain(error: Exception, folder: Path) -> TrainingError:
    """`error` as a TrainingError. What nobody foresaw keeps its type and text, with the code `internal`."""
    if isinstance(error, TrainingError):
        return error
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if any(is_out_of_space(link) for link in chain):
        return TrainingError(
            f"the disk that holds {folder} is full: free some space and start the run again; "
            "it goes on from its last checkpoint",
            code="disk_full",
        )
    if any(is_write_refused(link) for link in chain):
        return TrainingError(
            f"a file could not be written to {folder}: its disk is full, or a quota or a limit on the size of files is "
            "reached; make room and start the run again; it goes on from its last checkpoint",
            code="disk_full",
        )
    if any(is_memory_full(link) for link in chain):
        return TrainingError(
            f"out of memory: lower {' or '.join(memory_settings(folder))}, or take a smaller model",
            code="out_of_memory",
        )
    if world_size() > 1 and any(is_process_lost(link) for link in chain):
        return TrainingError(
            "another process of this run ended, and with it the run; start it again to go on from its last checkpoint",
            code=LOST,
        )
    if isinstance(error, PermissionError):
        return TrainingError(f"{error.filename}: no permission to read or write it", code="permission")
    return TrainingError(f"internal error, please report it: {type(error).__name__}: {error}", code="internal")


def is_out_of_space(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)


def is_write_refused(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return True
    return isinstance(error, Exception) and any(text in str(error) for text in WRITE_FAILED)


def is_process_lost(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in BROKEN)


def is_memory_full(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
