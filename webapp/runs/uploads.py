"""Model files that people send, in pieces: each is small, so neither a proxy nor memory limits the whole, and a lost
connection costs one piece."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from training.contract import MODEL_FILES, is_model_file
from webapp.accounts.models import Project, User
from webapp.errors import BadInput, Conflict, DiskFull
from webapp.runs.models import ModelUpload, Run

log = logging.getLogger(__name__)

PIECE_BYTES: Final = 8 << 20  # below what every request may carry; see webapp.bodies
KEPT: Final = timedelta(days=7)  # a file that no run took in is deleted so long after its last piece
COPIES: Final = 2  # of a model's bytes that the disk must hold at once: as it was sent, and unpacked
SPARE: Final = 512 << 20
BLOCK: Final = 1 << 20


@transaction.atomic
def start_upload(*, project: Project, by: User, name: str, size: int) -> ModelUpload:
    """A place for a file of `size` bytes. Raises BadInput for another kind of file or one that is too large, DiskFull
    if there is no room for it, unpacked, beside those that are still on their way."""
    name = Path(name.replace("\\", "/")).name[:200]
    if not is_model_file(name):
        raise BadInput(f"name: send the model as one file: {', '.join(MODEL_FILES)}.", field="name")
    if not 0 < size <= settings.MODEL_UPLOAD_MAX:
        limit = filesizeformat(settings.MODEL_UPLOAD_MAX)
        problem = f"is larger than {limit}" if size else "is empty"
        raise BadInput(
            f"size: {name} {problem}. Put larger models into a folder of MODEL_FOLDERS on the training machine.",
            field="size",
        )
    check_room(size)
    upload = ModelUpload(project=project, by=by, name=name, size=size, token=uuid4().hex)
    upload.full_clean()
    upload.save()
    folder = file_of(upload).parent
    folder.mkdir(parents=True, mode=0o700)
    return upload


def check_room(size: int) -> None:
    root = Path(default_storage.path(""))
    root.mkdir(parents=True, exist_ok=True)
    expected = sum(upload.size - upload.received for upload in ModelUpload.objects.all())
    needed, free = COPIES * size, shutil.disk_usage(root).free - expected - SPARE
    if needed > free:
        raise DiskFull(
            f"{needed / 1e9:.1f} GB are needed to keep and unpack this file, and {max(0, free) / 1e9:.1f} GB are free "
            "on this machine. Make room, or send a smaller model."
        )


def file_of(upload: ModelUpload) -> Path:
    """Where its bytes lie. Nothing of the name that a person gave is in the path, but for its ending."""
    ending = max((ending for ending in MODEL_FILES if upload.name.lower().endswith(ending)), key=len)
    return Path(default_storage.path(f"{ModelUpload.FOLDER}/{upload.token}/model{ending}"))


@transaction.atomic
def append_piece(*, upload: ModelUpload, offset: int, content: IO[bytes]) -> ModelUpload:
    """Add the bytes from `offset` on. Raises Conflict, with how many are there, if they are not the next ones;
    BadInput if they are more than the file has, or more than a piece may have."""
    upload = ModelUpload.objects.select_for_update().get(pk=upload.pk)
    path = file_of(upload)
    if not path.exists():  # its disk was lost, or somebody tidied up: it is sent from the start
        upload.received = 0
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    if offset != upload.received:
        raise Conflict(
            f"{upload.received:,} bytes of {upload.name} are here. Send those that follow.",
            code="offset",
            received=upload.received,
        )
    with path.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.truncate()
        written = 0
        while block := content.read(BLOCK):
            written += len(block)
            if written > PIECE_BYTES or offset + written > upload.size:
                limit = "than a piece may have" if written > PIECE_BYTES else f"than the {upload.size:,} of the file"
                raise BadInput(f"These are more bytes {limit}.")
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    upload.received, upload.touched_at = offset + written, timezone.now()
    upload.save(update_fields=["received", "touched_at"])
    return upload


def take_file(*, project: Project, by: User, path: Path) -> ModelUpload:
    """A file of this machine as if it had been sent. Raises what `start_upload` raises."""
    upload = start_upload(project=project, by=by, name=path.name, size=path.stat().st_size)
    shutil.copyfile(path, file_of(upload))
    upload.received = file_of(upload).stat().st_size
    upload.save(update_fields=["received"])
    return upload


def delete_upload(upload: ModelUpload) -> None:
    """Raises Conflict if a run still reads it."""
    if Run.objects.filter(upload=upload, state__in=Run.ACTIVE).exists():
        raise Conflict(f"A run is adding {upload.name}. Stop it first.")
    folder = file_of(upload).parent
    upload.delete()
    transaction.on_commit(remover_of(folder))


def drop_upload(run: Run) -> None:
    """The run has taken the file in."""
    if run.upload is not None:
        folder = file_of(run.upload).parent
        run.upload.delete()
        transaction.on_commit(remover_of(folder))


def remover_of(folder: Path) -> Callable[[], Any]:
    return lambda: shutil.rmtree(folder, ignore_errors=True)


def check_upload(project: Project, upload: ModelUpload) -> None:
    """Raises BadInput for a file of another project, or one that is not whole."""
    if upload.project_id != project.pk:
        raise BadInput("upload: this file belongs to another project.", field="upload")
    if not upload.complete:
        raise BadInput(
            f"upload: {upload.received:,} of {upload.size:,} bytes of {upload.name} are here. Send the rest first.",
            field="upload",
        )


def kept_upload(run: Run) -> ModelUpload:
    """The file that the run adds. Raises Conflict if it is deleted."""
    if run.upload is None:
        raise Conflict(f"{run.source_name} was deleted after it was sent. Add the model anew and send it again.")
    return run.upload


def delete_old_uploads(now: datetime | None = None) -> int:
    """Delete files that nobody went on sending or adding for a week, and folders that no upload names; how many."""
    before = (now or timezone.now()) - KEPT
    old = ModelUpload.objects.filter(touched_at__lt=before).exclude(runs__state__in=Run.ACTIVE)
    count = 0
    for upload in old:
        delete_upload(upload)
        count += 1
    root = Path(default_storage.path(ModelUpload.FOLDER))
    tokens = set(ModelUpload.objects.values_list("token", flat=True))
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name not in tokens and folder.stat().st_mtime < before.timestamp():
            shutil.rmtree(folder, ignore_errors=True)
            count += 1
    return count
