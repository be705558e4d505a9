"""What a worker does with an import: check the file, or load it, and say how far it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.core.cache import cache
from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from redis.exceptions import RedisError

from webapp.data import loading
from webapp.data.files import PROGRESS_ROWS
from webapp.data.models import Import
from webapp.data.services import IMPORTS, MAX_ATTEMPTS, finish_import, kind_named, too_heavy
from webapp.errors import BadInput, TutelageError
from webapp.jobs import ClaimLost, Heartbeat

log = logging.getLogger(__name__)
State = Import.State
PROGRESS_SECONDS: Final = 0.5
PROGRESS_KEPT: Final = 3600


class ImportStopped(Exception):
    """Nobody wants it read anymore."""


def run_import(*, record_id: int) -> None:
    """Check or load an import that waits. A second worker passes it over; an import whose worker dies is as it was
    before, and is read again. An error that nobody expected ends it at once: it would happen again."""
    record = IMPORTS.claim(record_id)
    if record is None:
        return
    with Heartbeat(IMPORTS, record), suppress(ClaimLost):
        try:
            load_or_check(record)
        except ImportStopped:
            finish_import(record, State.CANCELLED)
        except TutelageError as error:
            finish_import(record, State.FAILED, error=error.message)
        except (OperationalError, InterfaceError):  # the database went away, which is no fault of the file's
            with suppress(DatabaseError, InterfaceError, ClaimLost):
                IMPORTS.release(record, woken_at=None)
            raise
        except Exception as error:
            log.exception("import %s (%s) failed", record.pk, record.name)
            finish_import(record, State.FAILED, error=unforeseen(record, error))


def load_or_check(record: Import) -> None:
    """Read the file, in one transaction with the record of it, so that rows never come in under an import that says
    failed. Raises ClaimLost if somebody canceled it meanwhile."""
    if record.stop_requested_at:
        raise ImportStopped
    if record.attempts > MAX_ATTEMPTS:
        raise BadInput(too_heavy())
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
        finish_import(
            record, State.READY if checking else State.DONE, report=report.as_json() | {"errors": report.errors}
        )


def progress_of(record: Import) -> Callable[[Path, int], None]:
    """Tells the page how many bytes and rows are read, and stops where somebody has asked for it."""
    reported_at, rows = 0.0, -PROGRESS_ROWS

    def on_position(_: Path, position: int) -> None:
        nonlocal reported_at, rows
        rows += PROGRESS_ROWS
        now = time.monotonic()
        if now - reported_at < PROGRESS_SECONDS:
            return
        reported_at = now
        if not IMPORTS.held(record).filter(stop_requested_at=None).exists():
            raise ImportStopped
        say_progress(record.pk, {"bytes": position, "rows": rows})

    return on_position


def say_progress(record_id: int, progress: dict[str, int]) -> None:
    try:
        cache.set(f"import:{record_id}", progress, PROGRESS_KEPT)
    except RedisError as error:
        log.warning("import %s: its progress cannot be told: %s", record_id, error)


def import_progress(record: Import) -> dict[str, int]:
    """How far a worker is, as far as is known."""
    try:
        position: dict[str, int] = cache.get(f"import:{record.pk}") or {}
    except RedisError:
        return {}
    return position


def unforeseen(record: Import, error: Exception) -> str:
    location: Any = getattr(error, "place", None)
    where = str(location) if location else record.name
    return (
        f"{where} cannot be read, and we did not foresee why ({type(error).__name__}). Nothing was imported. "
        "The worker's log has the details; please report it with the file, or turn on “Skip bad rows”."
    )
