"""What a worker does with an import: check the file, or load it, and say how far it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from django.core.cache import cache
from django.db import InterfaceError, OperationalError, transaction
from redis.exceptions import RedisError

from webapp.data import loading
from webapp.data.files import PROGRESS_ROWS
from webapp.data.models import Import
from webapp.data.services import end, kind_named
from webapp.errors import TutelageError
from webapp.locks import lock_alone

log = logging.getLogger(__name__)
State = Import.State
LOCK: Final = 7_113_003  # first key of the advisory lock that one worker holds while it reads an import
MAX_ATTEMPTS: Final = 3
PROGRESS_SECONDS: Final = 0.5
PROGRESS_KEPT: Final = 3600


class Stopped(Exception):
    """Nobody wants it read any more."""


def read_import(*, record_id: int) -> None:
    """Check or load an import that waits. A second worker passes it over; one whose worker dies is as it was before,
    and is read again. What nobody foresaw ends it at once: it would happen again."""
    with lock_alone(LOCK, record_id) as mine:
        record = start_attempt(record_id=record_id) if mine else None
        if record is None:
            return
        try:
            load_or_check(record)
        except Stopped:
            end(record, State.CANCELLED)
        except TutelageError as error:
            end(record, State.FAILED, error=error.message)
        except (OperationalError, InterfaceError):
            raise  # the database went away, which is no fault of the file's
        except Exception as error:
            log.exception("import %s (%s) failed", record.pk, record.name)
            end(record, State.FAILED, error=unforeseen(record, error))


@transaction.atomic
def start_attempt(*, record_id: int) -> Import | None:
    """Count an attempt; None where there is nothing to do."""
    rows = Import.objects.select_for_update(of=("self",)).select_related("project", "by")
    record = rows.filter(pk=record_id, state__in=Import.ACTIVE).first()
    if record is None:
        return None
    if record.stop_requested_at:
        end(record, State.CANCELLED)
        return None
    record.attempts += 1
    record.save(update_fields=["attempts"])
    if record.attempts <= MAX_ATTEMPTS:
        return record
    text = f"The worker died {MAX_ATTEMPTS} times over this file. Split it into smaller ones and try again."
    end(record, State.FAILED, error=text)
    return None


def load_or_check(record: Import) -> None:
    """In one transaction with the word that it is done, so that rows never come in under an import that says failed."""
    checking = record.state == State.CHECKING
    say_progress(record.pk, {"bytes": 0})
    with transaction.atomic():
        report = loading.load(
            project=record.project,
            by=record.by,
            paths=[Path(record.file.path)],
            kind=kind_named(record.kind),
            corpus=record.corpus or record.name.partition(".")[0],
            licence=record.licence,
            open_tasks=record.open_tasks,
            skip_bad=checking or record.skip_bad,
            dry_run=checking,
            on_position=progress_of(record),
        )
        found = report.as_json() | {"errors": report.errors}
        if not end(record, State.READY if checking else State.DONE, report=found):
            raise Stopped


def progress_of(record: Import) -> Callable[[Path, int], None]:
    """Tells the page how many bytes and rows are read, and stops where somebody has asked for it."""
    told, rows = 0.0, -PROGRESS_ROWS

    def on_position(_: Path, position: int) -> None:
        nonlocal told, rows
        rows += PROGRESS_ROWS
        now = time.monotonic()
        if now - told < PROGRESS_SECONDS:
            return
        told = now
        if not Import.objects.filter(pk=record.pk, state=record.state, stop_requested_at=None).exists():
            raise Stopped
        say_progress(record.pk, {"bytes": position, "rows": rows})

    return on_position


def say_progress(record_id: int, progress: dict[str, int]) -> None:
    try:
        cache.set(f"import:{record_id}", progress, PROGRESS_KEPT)
    except RedisError as error:
        log.warning("import %s: its progress cannot be told: %s", record_id, error)


def progress(record: Import) -> dict[str, int]:
    """How far a worker is, as far as is known."""
    try:
        known: dict[str, int] = cache.get(f"import:{record.pk}") or {}
    except RedisError:
        return {}
    return known


def unforeseen(record: Import, error: Exception) -> str:
    place: Any = getattr(error, "place", None)
    where = str(place) if place else record.name
    return (
        f"{where} cannot be read, and we did not foresee why ({type(error).__name__}). Nothing was imported. "
        "The worker's log has the details; please report it with the file, or turn on “Skip bad rows”."
    )
