"""A training worker's reports: what its machine computes on once it is up, and that it is still there every minute."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import psutil
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from training.contract import DeviceReport, facts_of_folder, is_gguf
from webapp.home_folder import ROOT
from webapp.model_names import small_model_file
from webapp.runs.execution import environment
from webapp.runs.machines import save_report
from webapp.supervisor.launch import tied

log = logging.getLogger(__name__)

SMOLLM2: Final = (134_515_008, 49_152, True)  # parameters, vocabulary, and the chat template that its base model lacks
MAX_FOLDERS: Final = 2000
MAX_MODELS: Final = 50
EVERY: Final = 60.0  # seconds between signs of life
PROBE_SECONDS: Final = 300.0


def probe_device() -> DeviceReport | None:
    """Asks a process of the training side, for this one never imports torch. None, with a line in the log, if it
    cannot say."""
    try:
        answer = subprocess.run(
            tied([sys.executable, "-m", "training.models.devices"], death=signal.SIGTERM),
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
        )
        return DeviceReport.model_validate_json(answer.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        details = getattr(error, "stderr", "") or str(error)
        log.warning("this machine's device could not be read: %s", str(details).strip()[-500:])
        return None


def refreshed(report: DeviceReport) -> DeviceReport:
    """The same with the disk and memory that are free by now. Of a GPU the memory stays what it was: only its own
    processes can ask."""
    report = report.model_copy(update={"disk": free_disk(Path(settings.RUNS_FOLDER))})
    if report.kind != "cpu":
        return report
    free = min(int(psutil.virtual_memory().available), report.memory)
    return report.model_copy(update={"free": free})


def free_disk(folder: Path) -> int:
    """Bytes, where the folder is or will be; 0 if the disk cannot be asked."""
    existing = next((path for path in [folder, *folder.parents] if path.exists()), folder)
    try:
        return shutil.disk_usage(existing).free
    except OSError as error:
        log.warning("the disk of %s cannot be asked: %s", folder, error)
        return 0


def find_small_model() -> str:
    """A folder with SmolLM2-135M-Instruct below those that the operator lists, or the file in its package; or empty."""
    return next((str(path) for path in listed_paths() if is_small_model(path)), str(small_model_file() or ""))


def listed_paths() -> Iterator[Path]:
    """The listed folders with all that is in them, two levels down."""
    for listed in settings.MODEL_FOLDERS:
        yield from islice(chain([listed], sorted(listed.glob("*")), sorted(listed.glob("*/*"))), MAX_FOLDERS)


def find_models() -> list[dict[str, Any]]:
    """What a person can add from this machine's listed folders: path and bytes of model folders and GGUF files."""
    models = []
    for path in islice(filter(is_model, listed_paths()), MAX_MODELS):
        weights = [path] if path.is_file() else path.glob("*.safetensors")
        models.append({"path": str(path), "bytes": sum(file.stat().st_size for file in weights)})
    return models


def is_model(path: Path) -> bool:
    """By its names alone: a folder with a config and safetensors, or a GGUF file. Links are left out, for they may lead
    out of the listed folders."""
    try:
        if path.is_symlink():
            return False
        if path.is_file():
            return is_gguf(path.name)
        has_config = any((path / name).is_file() for name in ("config.json", "adapter_config.json"))
        return has_config and any(path.glob("*.safetensors"))
    except OSError:
        return False


def is_small_model(folder: Path) -> bool:
    facts = facts_of_folder(folder) if (folder / "config.json").is_file() else None
    return facts is not None and (facts.parameters, facts.vocabulary, facts.chat_template) == SMOLLM2


def keep_reporting(stop: threading.Event) -> None:
    """Until `stop` is set. A database that does not answer is asked again a minute later."""
    report = probe_device()
    while report is not None:
        try:
            save_report(refreshed(report), small_model=find_small_model(), models=find_models())
        except (DatabaseError, InterfaceError) as error:
            log.warning("the database does not answer, this machine reports again later: %s", error)
        finally:
            connection.close()
        if stop.wait(EVERY):
            return


def start_reporting(stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=keep_reporting, args=(stop,), name="machine-report", daemon=True)
    thread.start()
    return thread
