"""The machines that train, as their workers report them."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone
from pydantic import ValidationError

from training.contract import DeviceReport
from webapp.runs.models import Machine

GONE: Final = timedelta(minutes=5)  # without a sign of life for this long, a machine is not there


def newest_machine(now: datetime | None = None) -> tuple[Machine, DeviceReport] | None:
    """The machine that runs are counted for: of those that are there the one with the most memory, else the one seen
    last. None before any has reported."""
    now = now or timezone.now()
    reports = [(machine, report) for machine in Machine.objects.all() if (report := read_report(machine.report))]
    present = [(machine, report) for machine, report in reports if now - machine.seen_at < GONE]
    if present:
        return max(present, key=lambda pair: pair[1].memory * pair[1].count)
    return reports[0] if reports else None


def missing_trackers(names: Iterable[str]) -> list[str]:
    """Those experiment trackers whose package no training machine has that is there; none while no machine says."""
    reports = [
        report.trackers
        for machine in Machine.objects.filter(seen_at__gt=timezone.now() - GONE)
        if (report := read_report(machine.report)) and report.trackers is not None
    ]
    return [name for name in names if reports and not any(name in trackers for trackers in reports)]


def device_count() -> int:
    """Of the machine that runs are counted for, the most processes that a run may have; 0 before any has reported."""
    machine = newest_machine()
    return machine[1].count if machine else 0


def is_present(machine: Machine) -> bool:
    return timezone.now() - machine.seen_at < GONE


def read_report(document: Any) -> DeviceReport | None:
    try:
        return DeviceReport.model_validate(document)
    except ValidationError:
        return None  # of another version's worker, which reports again when it is updated


def save_report(
    report: DeviceReport, *, host: str = "", small_model: str = "", models: Sequence[dict[str, Any]] = ()
) -> None:
    """`small_model`: where it has the small chat model. `models`: path and bytes of those in its listed folders."""
    Machine.objects.update_or_create(
        host=(host or socket.gethostname())[:200],
        defaults={
            "report": report.model_dump(),
            "small_model": small_model,
            "models": list(models),
            "seen_at": timezone.now(),
        },
    )


def listed_models() -> list[dict[str, Any]]:
    """The models that the machines that are there have in their listed folders, each path once: path, bytes."""
    present = Machine.objects.filter(seen_at__gt=timezone.now() - GONE)
    return list({model["path"]: model for machine in present for model in machine.models}.values())


def small_model_folder() -> str:
    """Where a machine that is there has the small chat model; empty if none has."""
    present = Machine.objects.filter(seen_at__gt=timezone.now() - GONE).exclude(small_model="")
    return present.values_list("small_model", flat=True).first() or ""
