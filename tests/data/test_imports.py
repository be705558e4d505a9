"""Imports on the site: handed in, checked, looked at, then taken or left.

Over 300 lines: all cases share the files and the steps of an import.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotations.models import Prompt
from tests import factories
from webapp import jobs, processes, wake
from webapp.accounts.models import Project, User
from webapp.data import loading, reading, services, tasks
from webapp.data.models import Import
from webapp.data.services import MAX_ATTEMPTS
from webapp.errors import Conflict

pytestmark = pytest.mark.django_db
State = Import.State
GOOD = '{"prompt": "Sing"}\n'


@pytest.fixture(autouse=True)
def uploads(settings: Any, tmp_path: Path) -> Path:
    settings.STORAGES = settings.STORAGES | {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path / "uploads"},
        }
    }
    return tmp_path / "uploads"


@pytest.fixture
def mos(client: Client, mo: User) -> Client:
    client.force_login(mo)
    return client


@pytest.fixture
def hand_in(mos: Client) -> Any:
    """Hand in a file on the page, and let a worker check it."""

    def send(content: str, name: str = "rows.jsonl", **fields: str) -> Import:
        data = {"file": SimpleUploadedFile(name, content.encode()), **fields}
        answer = mos.post(reverse("data_import_new", args=["kite"]), data)
        record = Import.objects.latest("pk")
        assert answer["Location"] == reverse("data_import", args=["kite", record.pk])
        return work(record)

    return send


def work(record: Import) -> Import:
    """As a worker does once it is told."""
    tasks.read_import(record.pk)
    record.refresh_from_db()
    return record


def act(client: Client, record: Import, what: str, **fields: str) -> Import:
    client.post(reverse(f"data_import_{what}", args=["kite", record.pk]), fields)
    record.refresh_from_db()
    return record


def page(client: Client, record: Import) -> str:
    return client.get(reverse("data_import", args=["kite", record.pk])).content.decode()


def test_a_file_is_checked_before_anything_of_it_is_taken(
    mos: Client, hand_in: Any, django_capture_on_commit_callbacks: Any
) -> None:
    record = hand_in('{"prompt": "Sing"}\n{"text": ""}\n')
    assert record.state == State.READY, record.error
    assert not Prompt.objects.exists()
    shown = page(mos, record)
    assert "1 found" in shown
    assert "empty" in shown
    assert act(mos, record, "confirm").state == State.WAITING
    with django_capture_on_commit_callbacks(execute=True):
        assert work(record).state == State.DONE
    assert Prompt.objects.get().source_ref == "rows.jsonl:1"
    assert f"{reverse('data_prompts', args=['kite'])}?file=rows.jsonl" in page(mos, record)
    listed = mos.get(reverse("data_prompts", args=["kite"]), {"file": "rows.jsonl"}).content.decode()
    assert "Sing" in listed
    assert "Sing" not in mos.get(reverse("data_prompts", args=["kite"]), {"file": "row"}).content.decode()


def test_cancelling_takes_nothing_and_deletes_the_file(
    mos: Client, hand_in: Any, uploads: Path, django_capture_on_commit_callbacks: Any
) -> None:
    record = hand_in(GOOD)
    with django_capture_on_commit_callbacks(execute=True):
        assert act(mos, record, "cancel").state == State.CANCELLED
    assert not [path for path in uploads.rglob("*") if path.is_file()]
    assert not Prompt.objects.exists()
    assert "Nothing was imported" in page(mos, record)


def test_a_file_that_came_in_is_deleted(
    mos: Client, hand_in: Any, uploads: Path, django_capture_on_commit_callbacks: Any
) -> None:
    record = act(mos, hand_in(GOOD), "confirm")
    with django_capture_on_commit_callbacks(execute=True):
        work(record)
    record.refresh_from_db()
    assert (record.state, record.file.name, list(uploads.glob("imports/*"))) == (State.DONE, "", [])


def test_two_files_of_one_name_both_keep_it(mos: Client, hand_in: Any) -> None:
    first, second = hand_in(GOOD), hand_in('{"prompt": "Dance"}\n')
    for record in (first, second):
        work(act(mos, record, "confirm"))
    assert set(Prompt.objects.values_list("source_ref", flat=True)) == {"rows.jsonl:1"}


def test_bad_rows_are_named_and_can_be_skipped(mos: Client, hand_in: Any) -> None:
    record = hand_in(GOOD + '{"color": "red", "size": 3}\n')
    assert record.state == State.READY
    shown = page(mos, record)
    assert "rows.jsonl:2" in shown
    assert "Import without the bad rows" in shown
    assert work(act(mos, record, "confirm", skip_bad="on")).state == State.DONE
    assert Prompt.objects.count() == 1


def test_bad_rows_that_nobody_skips_stop_the_import(mos: Client, hand_in: Any) -> None:
    record = hand_in(GOOD + '{"color": "red"}\n')
    assert work(act(mos, record, "confirm")).state == State.FAILED
    assert not Prompt.objects.exists()
    assert "rows.jsonl:2" in page(mos, record)
    assert work(act(mos, record, "check", skip_bad="on")).state == State.READY, "without uploading it again"


def test_what_is_taken_of_a_file_can_be_changed_and_is_shown_first(mos: Client, hand_in: Any) -> None:
    record = hand_in('{"prompt": "Sing", "completion": "La."}\n')
    assert record.report["found"] == {"demonstrations": 1}
    assert act(mos, record, "confirm", kind="prompts").state == State.CHECKING
    assert work(record).report["found"] == {"prompts": 1}


def test_a_file_that_cannot_be_read_says_where(mos: Client, hand_in: Any) -> None:
    record = hand_in("[1, 2", "rows.json")
    assert record.state == State.FAILED
    assert "rows.json:1" in page(mos, record)
    assert "What a file can hold" in page(mos, record)


@pytest.mark.parametrize("htmx", [False, True])
def test_a_file_of_no_known_kind_keeps_the_form(mos: Client, htmx: bool) -> None:
    data = {"file": SimpleUploadedFile("rows.exe", b"x"), "corpus": "Novels", "open_tasks": "on", "kind": "text"}
    headers = {"HX-Request": "true"} if htmx else {}
    answer = mos.post(reverse("data_import_new", args=["kite"]), data, headers=headers)
    assert answer.status_code == (200 if htmx else 400)
    shown = answer.content.decode()
    assert "cannot tell what this file holds" in shown
    assert 'value="Novels"' in shown
    assert '<option value="text" selected>' in shown
    assert not Import.objects.exists()


def test_an_empty_file_keeps_the_form(mos: Client) -> None:
    answer = mos.post(
        reverse("data_import_new", args=["kite"]), {"file": SimpleUploadedFile("a.csv", b""), "corpus": "Novels"}
    )
    assert answer.status_code == 400
    assert 'value="Novels"' in answer.content.decode()


def test_an_import_made_while_the_broker_is_down_waits_for_the_reconciler(
    mos: Client,
    django_capture_on_commit_callbacks: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(wake, "app", Celery("nobody", broker="redis://127.0.0.1:9/0"))  # nothing listens there
    with django_capture_on_commit_callbacks(execute=True):
        answer = mos.post(reverse("data_import_new", args=["kite"]), {"file": SimpleUploadedFile("a.jsonl", b"{}")})
    assert answer.status_code == 302
    assert Import.objects.get().state == State.CHECKING
    assert "no message to the workers" in caplog.text


def test_the_reconciler_wakes_what_nobody_was_told_of(hand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record = hand_in(GOOD)
    woken: list[int] = []
    monkeypatch.setattr(jobs, "send_task", lambda _, pk, **__: bool(woken.append(pk)))
    tasks.reconcile_imports()
    assert woken == [], "it is checked, and waits for a person"
    Import.objects.update(state=State.WAITING, woken_at=timezone.now() - timedelta(minutes=1))
    tasks.reconcile_imports()
    tasks.reconcile_imports()
    assert woken == [record.pk]


def test_what_nobody_foresaw_fails_at_once_with_a_sentence_and_a_trace(
    mos: Client, hand_in: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_: object) -> None:
        raise KeyError("text")

    monkeypatch.setattr(loading, "load", broken)
    with caplog.at_level(logging.ERROR):
        record = hand_in(GOOD)
    assert (record.state, record.attempts) == (State.FAILED, 1)
    assert "rows.jsonl cannot be read" in record.error
    assert "KeyError" in record.error
    assert "Traceback" in caplog.text


def test_a_database_that_goes_away_is_no_fault_of_the_file(
    hand_in: Any, monkeypatch: pytest.MonkeyPatch, mos: Client
) -> None:
    record = act(mos, hand_in(GOOD), "confirm")

    def gone(**_: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(loading, "load", gone)
        with pytest.raises(OperationalError):
            tasks.read_import(record.pk)
    assert work(record).state == State.DONE


def test_a_file_over_which_workers_die_is_given_up(mos: Client, hand_in: Any) -> None:
    record = act(mos, hand_in(GOOD), "confirm")
    Import.objects.update(attempts=MAX_ATTEMPTS)
    assert work(record).state == State.FAILED
    assert "smaller" in record.error


def test_an_import_that_is_stopped_half_way_leaves_nothing(
    mos: Client, hand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = act(mos, hand_in("".join(json.dumps({"prompt": f"Sing {n}"}) + "\n" for n in range(3000))), "confirm")
    monkeypatch.setattr(reading, "PROGRESS_SECONDS", 0.0)
    seen: list[dict[str, int]] = []

    def tell(record_id: int, progress: dict[str, int]) -> None:
        seen.append(progress)
        if len(seen) == 3:
            mos.post(reverse("data_import_cancel", args=["kite", record_id]))

    monkeypatch.setattr(reading, "say_progress", tell)
    assert work(record).state == State.CANCELLED
    assert not Prompt.objects.exists()
    assert seen[-1]["bytes"] > 0


def test_the_page_says_how_far_a_worker_is(mos: Client, hand_in: Any) -> None:
    record = act(mos, hand_in(GOOD), "confirm")
    reading.say_progress(record.pk, {"bytes": 10, "rows": 1200})
    shown = page(mos, record)
    assert f'max="{record.size}" value="10"' in shown
    assert "1,200 rows" in shown


def test_a_second_worker_passes_over_what_the_first_one_reads(mos: Client, hand_in: Any) -> None:
    record = act(mos, hand_in(GOOD), "confirm")
    with subprocess.Popen(["sleep", "600"]) as worker:
        assert services.IMPORTS.claim(record.pk, worker=processes.identity(worker.pid))
        tasks.reconcile_imports()
        assert (work(record).state, record.attempts) == (State.WAITING, 1)
        worker.kill()
    tasks.reconcile_imports()
    assert work(record).state == State.DONE, "its worker died, and the claim went with it"


def test_an_import_that_was_canceled_while_its_worker_died_is_canceled(mos: Client, hand_in: Any) -> None:
    record = act(mos, hand_in(GOOD), "confirm")
    assert services.IMPORTS.claim(record.pk)
    assert act(mos, record, "cancel").state == State.WAITING, "its worker is asked to stop"
    later = timezone.now() + 2 * jobs.SILENCE
    services.reconcile_imports(later)
    record.refresh_from_db()
    assert (record.state, record.claim) == (State.CANCELLED, None)
    assert not Prompt.objects.exists()


def test_canceling_a_check_takes_it_from_its_worker(mos: Client, hand_in: Any) -> None:
    record = hand_in(GOOD)
    Import.objects.update(state=State.CHECKING)
    claimed = services.IMPORTS.claim(record.pk)
    assert claimed
    assert act(mos, record, "cancel").state == State.CANCELLED
    with pytest.raises(jobs.ClaimLost):
        services.finish_import(claimed, State.READY)


def test_an_import_is_not_confirmed_twice(mos: Client, hand_in: Any) -> None:
    record = act(mos, hand_in(GOOD), "confirm")
    with pytest.raises(Conflict, match="being imported already"):
        services.confirm(record=record)


def test_files_that_nobody_imported_go_after_a_week(
    hand_in: Any, uploads: Path, django_capture_on_commit_callbacks: Any
) -> None:
    waiting, failed = hand_in(GOOD), hand_in("[1", "rows.json")
    orphan = uploads / "imports" / "2026" / "11" / "left.jsonl"
    orphan.parent.mkdir(parents=True)
    orphan.write_text(GOOD)
    later = timezone.now() + timedelta(days=services.KEPT_DAYS, minutes=1)
    assert services.delete_old_files() == 0
    with django_capture_on_commit_callbacks(execute=True):
        assert services.delete_old_files(later) == 3
    assert not [path for path in uploads.rglob("*") if path.is_file()]
    waiting.refresh_from_db()
    failed.refresh_from_db()
    assert (waiting.state, failed.state, failed.file.name) == (State.CANCELLED, State.FAILED, "")


def test_a_file_of_a_deleted_import_goes_too(hand_in: Any, uploads: Path) -> None:
    record = hand_in(GOOD)
    path = Path(record.file.path)
    os.utime(path, (0, 0))
    record.delete()
    assert services.delete_old_files() == 1
    assert not path.exists()


def test_a_file_read_again_asks_about_prompts_that_nobody_was_asked_about(
    mos: Client, hand_in: Any, project: Project
) -> None:
    work(act(mos, hand_in(GOOD), "confirm"))
    for _ in range(2):
        work(act(mos, hand_in(GOOD + '{"prompt": "Dance"}\n'), "confirm", open_tasks="on"))
    assert sorted(task.prompt.text for task in project.tasks.all()) == ["Dance", "Sing"]


def test_an_annotator_may_not_take_part(client: Client, hand_in: Any, ann: User, project: Project) -> None:
    record = hand_in(GOOD)
    client.force_login(ann)
    for what in ("confirm", "check", "cancel"):
        assert client.post(reverse(f"data_import_{what}", args=["kite", record.pk])).status_code == 403
    factories.project(ann, "Other", slug="other")
    assert client.post(reverse("data_import_cancel", args=["other", record.pk])).status_code == 404


def test_a_report_forgets_the_rows_it_quotes_when_words_of_the_project_are_erased(project: Project, mo: User) -> None:
    report = {"found": {"prompts": 1}, "samples": {"prompts": [{"place": "f:1"}]}, "errors": ["f:2: Sing"]}
    record = Import.objects.create(project=project, by=mo, name="f", state=State.DONE, report=report)
    tasks.clean_up_imports()
    assert Import.objects.get().report == report

    Prompt.objects.filter(pk=factories.prompt(project).pk).update(erased_at=timezone.now())
    tasks.clean_up_imports()
    tasks.clean_up_imports()

    record.refresh_from_db()
    assert (record.report["samples"], record.report["errors"], record.report["found"]) == ({}, [], {"prompts": 1})
