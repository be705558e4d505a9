"""Exports as files that stay for a while: how long, how much they take, and how they go.

The row of the run stays when its files go, so that who took which model away can be seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from training.contract import SPECS
from webapp.accounts.models import Project, User
from webapp.errors import Conflict, Unavailable
from webapp.registry.artefacts import remove_folder
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run

log = logging.getLogger(__name__)
EXPORTING: Final = tuple(name for name, spec in SPECS.items() if spec.exports)


EXPORTS: Final = Run.objects.filter(stage__in=EXPORTING).select_related("project", "base", "created_by")


def exports_of(project: Project, model: ModelVersion | None = None) -> QuerySet[Run]:
    """The exports of a project or of one of its models, newest first, with those that have not ended or that failed."""
    runs = EXPORTS.filter(project=project)
    return runs.filter(base=model) if model else runs


def export_bytes(run: Run) -> int:
    """What its files take; 0 once they are gone."""
    return int(run.result.get("model", {}).get("bytes", 0)) if run.outputs else 0


def expires_at(run: Run) -> datetime | None:
    """When its files go by themselves; None if never, or if it has none."""
    if not run.outputs or run.finished_at is None or not settings.EXPORT_DAYS:
        return None
    return run.finished_at + timedelta(days=settings.EXPORT_DAYS)


def remove_export(*, run: Run, by: User | None = None) -> None:
    """Delete the files of an export. Raises Conflict for a run that has not ended, Unavailable where the store does not
    answer. One whose files are gone already stays as it is."""
    with transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run.pk)
        if run.active:
            raise Conflict(f"{run.name} is still {run.get_state_display().lower()}. Stop it first.")
        if not run.outputs:
            return
        folder, outputs = folder_of_outputs(run), run.outputs
        run.outputs, run.outputs_removed_at = {}, timezone.now()
        run.save(update_fields=["outputs", "outputs_removed_at"])
        transaction.on_commit(lambda: remove_files(run, folder, outputs))
    log.info("export %s: files removed by %s", run.pk, by.pk if by else "the clock")


def remove_files(run: Run, folder: str, outputs: dict[str, str]) -> None:
    """Once the database says so. If the store does not answer, the database has to say again that they are there."""
    if folder in shared_folders(run):
        return
    try:
        remove_folder(folder)
    except Unavailable:
        Run.objects.filter(pk=run.pk).update(outputs=outputs, outputs_removed_at=None)
        raise


def folder_of_outputs(run: Run) -> str:
    """The folder in the store; empty if there is none."""
    for name, address in run.outputs.items():
        return str(address).removesuffix(f"/{name}")
    return ""


def shared_folders(run: Run) -> set[str]:
    """Folders of other exports of the project: what is equal to the last byte is stored once."""
    return {folder_of_outputs(other) for other in exports_of(run.project).exclude(pk=run.pk)}


def remove_old_exports(now: datetime | None = None) -> int:
    """Delete the files of exports whose time is over or whose model is archived; of how many."""
    old = Q(base__archived_at__isnull=False)
    if settings.EXPORT_DAYS:
        old |= Q(finished_at__lt=(now or timezone.now()) - timedelta(days=settings.EXPORT_DAYS))
    runs = EXPORTS.filter(old).exclude(outputs={}).exclude(state__in=Run.ACTIVE)
    return sum(removed(runs))


def removed(runs: Iterable[Run]) -> Iterable[bool]:
    for run in runs:
        try:
            remove_export(run=run)
        except Unavailable as error:
            log.warning("export %s stays until the store answers: %s", run.pk, error.message)
            yield False
        else:
            yield True
