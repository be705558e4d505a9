"""The machines that train: each worker reports its device once it is up, and that it is still there every minute."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from typing import Any, Final

import psutil
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone
from pydantic import ValidationError

from training.contract import DeviceReport
from webapp.home_folder import ROOT
from webapp.runs.execution import environment
from webapp.runs.models import Machine
from webapp.supervisor.launch import tied

log = logging.getLogger(__name__)

EVERY: Final = 60.0  # seconds between signs of life
GONE: Final = timedelta(minutes=5)  # without one for this long, a machine is not there
PROBE_SECONDS: Final = 300.0


def newest_machine(now: datetime | None = None) -> tuple[Machine, DeviceReport] | None:
    """The machine that runs are counted for: of those that are there the one with the most memory, else the one seen
    last. None before any has reported."""
    now = now or timezone.now()
    reports = [(machine, report) for machine in Machine.objects.all() if (report := read_report(machine.report))]
    present = [(machine, report) for machine, report in reports if now - machine.seen_at < GONE]
    if present:
        return max(present, key=lambda pair: pair[1].memory * pair[1].count)
    return reports[0] if reports else None


def is_present(machine: Machine) -> bool:
    return timezone.now() - machine.seen_at < GONE


def read_report(document: Any) -> DeviceReport | None:
    try:
        return DeviceReport.model_validate(document)
    except ValidationError:
        return None  # of another version's worker, which reports again when it is updated


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


def save_report(report: DeviceReport, *, host: str = "") -> None:
    Machine.objects.update_or_create(
        host=(host or socket.gethostname())[:200],
        defaults={"report": report.model_dump(), "seen_at": timezone.now()},
    )


def refreshed(report: DeviceReport) -> DeviceReport:
    """The same with the memory that is free by now. Of a GPU it stays what it was: only its own processes can ask."""
    if report.kind != "cpu":
        return report
    free = min(int(psutil.virtual_memory().available), report.memory)
    return report.model_copy(update={"free": free})


def keep_reporting(stop: threading.Event) -> None:
    """Until `stop` is set. A database that does not answer is asked again a minute later."""
    report = probe_device()
    while report is not None:
        try:
            save_report(refreshed(report))
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
