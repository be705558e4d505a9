"""Imports handed in on the site: kept, checked, confirmed, stopped, and tidied away."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from annotations.models import Prompt
from webapp.accounts.models import Project, User
from webapp.data import loading
from webapp.data.files import FORMATS, file_format
from webapp.data.models import Import
from webapp.data.shapes import Kind
from webapp.errors import BadInput, Conflict
from webapp.jobs import JobQueue

log = logging.getLogger(__name__)
State = Import.State
MAX_BYTES: Final = 512 * 1024 * 1024
KEPT_DAYS: Final = 7  # a file that was not imported is deleted after so long
IMPORTS: Final = JobQueue(Import, Import.ACTIVE, task="webapp.data.tasks.read_import")
MAX_ATTEMPTS: Final = 3


class ImportOptions(TypedDict, total=False):
    """How to read a file. `kind`: "" takes whatever is there; `corpus`: "" names it after the file."""

    kind: str
    corpus: str
    licence: str
    open_tasks: bool
    skip_bad: bool


def checked_name(upload: UploadedFile[Any]) -> str:
    """The file's own name. Raises BadInput for a file that no reader fits."""
    name = Path(upload.name or "").name
    file_format(Path(name))
    if not upload.size:
        raise BadInput(f"{name} is empty. Choose a file with something in it ({', '.join(FORMATS)}).", field="file")
    if upload.size > MAX_BYTES:
        raise BadInput(
            f"{name} is larger than 512 MB. Load it with `manage.py load` on the server, or split it.", field="file"
        )
    return name


@transaction.atomic
def start_import(
    *, project: Project, by: User, upload: UploadedFile[Any], confirmed: bool = False, **options: Unpack[ImportOptions]
) -> Import:
    """Keep the file; a worker checks it, and imports it at once where that is `confirmed` already. Raises BadInput for
    a file that no reader fits."""
    name = checked_name(upload)
    state = State.WAITING if confirmed else State.CHECKING
    record = Import(project=project, by=by, name=name[:200], size=upload.size or 0, state=state, **options)
    record.file.save(name, upload, save=False)
    record.full_clean(exclude=["report"])
    record.save()
    IMPORTS.wake(record)
    return record


@transaction.atomic
def check_again(*, record: Import, **options: Unpack[ImportOptions]) -> None:
    """Check the file again, read in another way."""
    restart_import(record, State.CHECKING, (State.READY, State.FAILED), options)


@transaction.atomic
def confirm(*, record: Import, **options: Unpack[ImportOptions]) -> None:
    """Import a file that was checked."""
    restart_import(record, State.WAITING, (State.READY,), options)


def restart_import(record: Import, state: State, states: tuple[State, ...], options: ImportOptions) -> None:
    locked = Import.objects.select_for_update(of=("self",)).get(pk=record.pk)
    if locked.state not in states:
        raise Conflict(f"{locked.name} is {locked.get_state_display().lower()} already.")
    if not locked.file:
        raise Conflict(f"{locked.name} was deleted {KEPT_DAYS} days after it was uploaded. Upload it again.")
    for name, value in options.items():
        setattr(locked, name, value)
    locked.state, locked.attempts, locked.error, locked.finished_at = state, 0, "", None
    locked.full_clean(exclude=["report"])
    locked.save()
    IMPORTS.wake(locked)


@transaction.atomic
def cancel(*, record: Import) -> None:
    """Take nothing of the file and delete it. One that a worker is importing stops before its next rows, and none of
    its rows stay."""
    locked = Import.objects.select_for_update(of=("self",)).get(pk=record.pk)
    if locked.state in (State.DONE, State.CANCELLED):
        raise Conflict(f"{locked.name} is {locked.get_state_display().lower()} already.")
    if locked.state == State.WAITING and locked.claim:
        locked.stop_requested_at = timezone.now()
        locked.save(update_fields=["stop_requested_at"])
    else:
        end_unclaimed(locked, State.CANCELLED)


def finish_import(record: Import, state: State, *, report: dict[str, Any] | None = None, error: str = "") -> None:
    """Record how an import that this process works on ended. Raises ClaimLost."""
    values = {} if report is None else {"report": report | {"file": record.file_name}}
    IMPORTS.end(record, state=state, error=error, finished_at=timezone.now(), **values)
    delete_unneeded_file(record)


def end_unclaimed(record: Import, state: State) -> None:
    """End an import that is locked, or that no worker may take anymore. A worker that has it loses its claim."""
    record.state, record.error, record.claim, record.finished_at = state, "", None, timezone.now()
    record.save(update_fields=["state", "error", "claim", "finished_at"])
    delete_unneeded_file(record)


def delete_unneeded_file(record: Import) -> None:
    if record.state in (State.DONE, State.CANCELLED):
        transaction.on_commit(lambda: delete_file(record))


def reconcile_imports(now: datetime | None = None) -> int:
    """Take back imports whose worker is gone, and announce those that nobody has claimed; how many were announced."""
    now = now or timezone.now()
    IMPORTS.take_back(requeue_import, now=now)
    return IMPORTS.announce(now=now)


def requeue_import(record: Import) -> None:
    if record.stop_requested_at:
        finish_import(record, State.CANCELLED)
    elif record.attempts >= MAX_ATTEMPTS:
        finish_import(record, State.FAILED, error=too_heavy())
    else:
        IMPORTS.release(record, woken_at=None)


def too_heavy() -> str:
    return f"The worker died {MAX_ATTEMPTS} times over this file. Split it into smaller ones and try again."


def delete_file(record: Import) -> None:
    """Remove the uploaded file and its folder, and the record's mention of them."""
    if record.file:
        folder = Path(record.file.path).parent
        record.file.delete(save=False)
        if folder.is_dir() and folder.parent.name == "imports" and not any(folder.iterdir()):
            folder.rmdir()
    Import.objects.filter(pk=record.pk).update(file="")


def delete_old_files(now: datetime | None = None) -> int:
    """Delete files that nobody imported for KEPT_DAYS, and those whose import is gone. Returns how many."""
    before = (now or timezone.now()) - timedelta(days=KEPT_DAYS)
    old = Import.objects.filter(created_at__lt=before).exclude(file="").exclude(state__in=Import.ACTIVE)
    count = 0
    for record in old:
        if record.state == State.READY:
            end_unclaimed(record, State.CANCELLED)
        else:
            delete_file(record)
        count += 1
    return count + delete_orphans(before)


def forget_previews() -> int:
    """Drop the rows and errors that reports quote, where words of the project were erased since: an exported file that
    was imported again may quote them. Returns how many reports changed."""
    erased = Prompt.objects.filter(project=OuterRef("project"), erased_at__gt=OuterRef("created_at"))
    ended = Import.objects.exclude(state__in=Import.ACTIVE).filter(Exists(erased), report__forgotten__isnull=True)
    count = 0
    for record in ended:
        report = record.report | {"samples": {}, "errors": [], "forgotten": True}
        count += Import.objects.filter(pk=record.pk).update(report=report)
    return count


def delete_orphans(before: datetime) -> int:
    """Files under imports/ that no import names: theirs was deleted, or never came to be."""
    storage = Import._meta.get_field("file").storage
    root = Path(storage.path("imports"))
    count = 0
    for path in [path for path in root.rglob("*") if path.is_file()] if root.is_dir() else []:
        name = path.relative_to(root.parent).as_posix()
        if path.stat().st_mtime < before.timestamp() and not Import.objects.filter(file=name).exists():
            path.unlink(missing_ok=True)
            if path.parent != root and not any(path.parent.iterdir()):
                path.parent.rmdir()
            count += 1
    return count


def kind_named(name: str) -> Kind | None:
    return next((kind for kind in loading.KINDS if kind == name), None)
