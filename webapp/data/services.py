"""Imports handed in on the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from celery import current_app
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.utils import timezone

from webapp.accounts.models import Project, User
from webapp.data import loading
from webapp.data.files import FORMATS, file_format
from webapp.data.models import Import
from webapp.data.shapes import Kind
from webapp.errors import BadInput, TutelageError

MOST_ATTEMPTS: Final = 3
MOST_BYTES: Final = 512 * 1024 * 1024


@transaction.atomic
def start_import(
    *,
    project: Project,
    by: User,
    upload: UploadedFile[Any],
    kind: Kind | None = None,
    corpus: str = "",
    licence: str = "",
    open_tasks: bool = False,
) -> Import:
    """Keep the file; a worker reads it. Raises BadInput for a file that no reader fits."""
    name = Path(upload.name or "").name
    file_format(Path(name))
    if not upload.size:
        raise BadInput(f"{name} is empty. Choose a file with something in it ({', '.join(FORMATS)}).")
    if upload.size > MOST_BYTES:
        raise BadInput(f"{name} is larger than 512 MB. Load it with `manage.py load` on the server.")
    record = Import(
        project=project, by=by, name=name, kind=kind or "", corpus=corpus, licence=licence, open_tasks=open_tasks
    )
    record.file.save(name, upload, save=False)
    record.full_clean(exclude=["report"])
    record.save()
    transaction.on_commit(lambda: wake(record))
    return record


def wake(record: Import) -> None:
    current_app.send_task("webapp.data.tasks.read_import", [record.pk])


def read_import(*, record_id: int) -> None:
    """Load an import that waits, in one transaction that holds its row: a second worker passes it over, and one whose
    worker dies is as it was before, waiting."""
    if not start_attempt(record_id=record_id):
        return
    try:
        with transaction.atomic():
            record = waiting(record_id)
            if record is not None:
                finish(record, state=Import.State.DONE, report=load_file(record).as_json())
    except TutelageError as error:
        failed = Import.objects.get(pk=record_id)
        finish(failed, state=Import.State.FAILED, error=error.message.replace(Path(failed.file.path).name, failed.name))


@transaction.atomic
def start_attempt(*, record_id: int) -> bool:
    """Count an attempt; False where there is nothing to do or another worker does it."""
    record = waiting(record_id)
    if record is None:
        return False
    record.attempts += 1
    record.save(update_fields=["attempts"])
    if record.attempts <= MOST_ATTEMPTS:
        return True
    text = f"The worker died {MOST_ATTEMPTS} times over this file. Split it into smaller ones and try again."
    finish(record, state=Import.State.FAILED, error=text)
    return False


def waiting(record_id: int) -> Import | None:
    rows = Import.objects.select_for_update(skip_locked=True, of=("self",)).select_related("project", "by")
    return rows.filter(pk=record_id, state=Import.State.WAITING).first()


def load_file(record: Import) -> loading.Report:
    return loading.load(
        project=record.project,
        by=record.by,
        paths=[Path(record.file.path)],
        kind=kind_named(record.kind),
        corpus=record.corpus or record.name.partition(".")[0],
        licence=record.licence,
        open_tasks=record.open_tasks,
    )


def finish(record: Import, *, state: Import.State, report: dict[str, object] | None = None, error: str = "") -> None:
    record.state, record.error, record.report, record.finished_at = state, error, report or {}, timezone.now()
    record.save(update_fields=["state", "error", "report", "finished_at"])


def kind_named(name: str) -> Kind | None:
    return next((kind for kind in loading.KINDS if kind == name), None)
