"""What the machines that train report of themselves."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.narrowing import existing
from training.contract import DeviceReport
from webapp.runs import reporting
from webapp.runs.machines import is_present, newest_machine, save_report
from webapp.runs.models import Machine
from webapp.runs.reporting import probe_device

pytestmark = pytest.mark.django_db
CPU = DeviceReport(kind="cpu", name="a laptop", memory=16 << 30, free=9 << 30, cores=8)
GPU = DeviceReport(kind="cuda", name="a GPU", memory=24 << 30, free=23 << 30, count=2, bf16=True, cores=16)


def test_this_machine_says_what_it_computes_on() -> None:
    report = existing(probe_device())
    assert report.memory >= report.free > 1 << 20
    assert report.cores >= 1
    assert report.name


def test_the_machine_with_the_most_memory_counts_while_it_is_there() -> None:
    assert newest_machine() is None
    save_report(CPU, host="laptop")
    save_report(GPU, host="box")
    machine, report = existing(newest_machine())
    assert (machine.host, report, is_present(machine)) == ("box", GPU, True)

    Machine.objects.filter(host="box").update(seen_at=timezone.now() - timedelta(hours=1))
    assert existing(newest_machine())[0].host == "laptop"
    Machine.objects.update(seen_at=timezone.now() - timedelta(days=1))
    assert not is_present(existing(newest_machine())[0])


def test_a_machine_reports_again_under_its_own_name() -> None:
    save_report(CPU, host="laptop")
    save_report(CPU.model_copy(update={"free": 1 << 30}), host="laptop")
    assert [row.report["free"] for row in Machine.objects.all()] == [1 << 30]


def test_a_report_that_cannot_be_read_is_passed_over() -> None:
    Machine.objects.create(host="old", report={"kind": "tpu"}, seen_at=timezone.now())
    assert newest_machine() is None


@pytest.mark.django_db(transaction=True)
def test_a_worker_reports_until_it_is_asked_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "probe_device", lambda: GPU)
    stop = threading.Event()
    thread = reporting.start_reporting(stop)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    report = existing(newest_machine())[1]
    assert report.disk > 0
    assert report.model_copy(update={"disk": 0}) == GPU
