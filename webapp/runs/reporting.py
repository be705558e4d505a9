"""A training worker's reports: what its machine computes on once it is up, and that it is still there every minute."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from itertools import chain, islice
from pathlib import Path
from typing import Final

import psutil
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from training.contract import DeviceReport, facts_of_folder
from webapp.home_folder import ROOT
from webapp.runs.execution import environment
from webapp.runs.machines import save_report
from webapp.supervisor.launch import tied

log = logging.getLogger(__name__)

SMOLLM2: Final = (134_515_008, 49_152, True)  # parameters, vocabulary, and the chat template that its base model lacks
MAX_FOLDERS: Final = 2000
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
    """The same with the memory that is free by now. Of a GPU it stays what it was: only its own processes can ask."""
    if report.kind != "cpu":
        return report
    free = min(int(psutil.virtual_memory().available), report.memory)
    return report.model_copy(update={"free": free})


def find_small_model() -> str:
    """A folder with SmolLM2-135M-Instruct below those that the operator lists, at most two levels down; or empty."""
    for listed in settings.MODEL_FOLDERS:
        folders = chain([listed], listed.glob("*"), listed.glob("*/*"))
        for folder in islice(folders, MAX_FOLDERS):
            if (folder / "config.json").is_file() and is_small_model(folder):
                return str(folder)
    return ""


def is_small_model(folder: Path) -> bool:
    facts = facts_of_folder(folder)
    return facts is not None and (facts.parameters, facts.vocabulary, facts.chat_template) == SMOLLM2


def keep_reporting(stop: threading.Event) -> None:
    """Until `stop` is set. A database that does not answer is asked again a minute later."""
    report = probe_device()
    while report is not None:
        try:
            save_report(refreshed(report), small_model=find_small_model())
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
