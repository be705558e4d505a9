"""Removing erased rows from the files that hold copies of them: snapshots, run folders, outputs and shown samples.

The row ids stay in the database, where an erasure marks them; what a file once held stays known by its content hash,
and `redacted_at` says that it holds less now. Runs under way keep the copy they read until they end. All of it can be
done again at any time, and is: what is still to be done follows from the marks alone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from training.contract import DATA, EVENTS, LOG, OUTPUT
from webapp.datasets.models import Snapshot, SnapshotItem
from webapp.registry.artefacts import rewrite_lines
from webapp.runs.folders import folder_of
from webapp.runs.models import Run, RunEvent
from webapp.wake import send_task

log = logging.getLogger(__name__)

TASK: Final = "webapp.runs.tasks.redact_files"
PREFIXES: Final = {
    "demonstrations": "demonstration",
    "rankings": "ranking",
    "prompts": "prompt",
    "judgments": "judgment",
}
MIN_QUOTED: Final = 20  # characters from which on a text inside another one counts as a copy of it
REMOVED: Final = "[removed]"
BATCH: Final = 5000


def mark_erased(*, rows: Mapping[str, Collection[int]], now: datetime) -> None:
    """Note in every snapshot which of its rows were erased, and have the files rewritten once this is committed."""
    for kind, ids in rows.items():
        row_ids = sorted(ids)
        for start in range(0, len(row_ids), BATCH):
            items = SnapshotItem.objects.filter(row__in=row_ids[start : start + BATCH], snapshot__kind=kind)
            items.filter(erased_at=None).update(erased_at=now)
    transaction.on_commit(lambda: send_task(TASK))


def redact_files() -> dict[str, int]:
    """Do what is still to be done; how many snapshots and runs were rewritten."""
    done = {"snapshots": 0, "runs": 0}
    for snapshot in unredacted_snapshots():
        redact_snapshot(snapshot)
        done["snapshots"] += 1
    for run in unredacted_runs().exclude(state__in=Run.ACTIVE):
        redact_run(run)
        done["runs"] += 1
    return done


def redact_inputs(run: Run) -> None:
    """Before a run reads its snapshots, take out what was erased since."""
    for snapshot in unredacted_snapshots().filter(runs=run):
        redact_snapshot(snapshot)


def unredacted_snapshots() -> QuerySet[Snapshot]:
    erased = SnapshotItem.objects.filter(snapshot=OuterRef("pk"), erased_at__isnull=False)
    since = erased.filter(erased_at__gt=OuterRef("redacted_at"))
    return Snapshot.objects.filter(Q(Exists(erased), redacted_at=None) | Q(Exists(since))).order_by("pk")


def unredacted_runs() -> QuerySet[Run]:
    """Runs that began with rows which were erased afterwards, and whose files have not been rewritten since."""
    erased = SnapshotItem.objects.filter(snapshot__runs=OuterRef("pk"), erased_at__gt=OuterRef("started_at"))
    since = erased.filter(erased_at__gt=OuterRef("redacted_at"))
    return Run.objects.filter(Q(Exists(erased), redacted_at=None) | Q(Exists(since))).order_by("pk")


def files_left(rows: Mapping[str, Collection[int]]) -> dict[str, int]:
    """How many snapshots and runs still hold these erased rows in their files."""
    items = Q()
    for kind, ids in rows.items():
        items |= Q(row__in=ids, snapshot__kind=kind)
    if not items:
        return {}
    snapshots = SnapshotItem.objects.filter(items).order_by().values("snapshot").distinct()
    counts = {
        "snapshots": unredacted_snapshots().filter(pk__in=snapshots).count(),
        "runs": unredacted_runs().filter(snapshots__in=snapshots).order_by().distinct().count(),
    }
    return {noun: count for noun, count in counts.items() if count}


def erased_names(items: QuerySet[SnapshotItem]) -> set[str]:
    """The erased rows as files name them, e.g. ranking:12."""
    rows = items.filter(erased_at__isnull=False).values_list("snapshot__kind", "row")
    return {f"{PREFIXES[kind]}:{row}" for kind, row in rows if kind in PREFIXES}


def redact_snapshot(snapshot: Snapshot) -> None:
    """Rewrite the snapshot's files without its erased rows. Its counts and its content hash stay as they were."""
    now = timezone.now()
    names = erased_names(snapshot.items.all())
    for address in snapshot.files.values():
        rewrite_lines(address, lambda line: None if row_name(line) in names else line)
    Snapshot.objects.filter(pk=snapshot.pk).update(redacted_at=now)
    log.info("snapshot %s: redacted, %s rows", snapshot.pk, len(names))


def redact_run(run: Run) -> None:
    """Remove erased rows from what an ended run read, wrote, logged and showed, and the checkpoints that go with them.
    The model that it made stays: lineage names it."""
    now = timezone.now()
    names = erased_names(SnapshotItem.objects.filter(snapshot__runs=run))
    folder = folder_of(run)
    texts: set[str] = set()

    def without_erased(line: bytes) -> bytes | None:
        row = parsed_row(line)
        if name_of(row) not in names:
            return line
        texts.update(texts_in(row))
        return None

    for path in [*folder.glob(f"{DATA}/*.jsonl"), *folder.glob("*.jsonl"), *folder.glob(f"{OUTPUT}/*.jsonl")]:
        if path.name != EVENTS:
            rewrite_lines(path.as_uri(), without_erased)
    for address in run.outputs.values():
        if str(address).endswith(".jsonl"):
            rewrite_lines(str(address), without_erased)
    blank_samples(run, folder, texts)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)  # it could not be resumed: the rows have changed
    Run.objects.filter(pk=run.pk).update(redacted_at=now)
    log.info("run %s: redacted, %s rows", run.pk, len(names))


# ---------------------------------------------------------------------------------------------------- rows and samples


def parsed_row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def name_of(row: Mapping[str, Any]) -> str:
    """The row's id; for a model's reply, the id of the prompt it answers."""
    return str(row.get("prompt_id") or row.get("id") or "")


def row_name(line: bytes) -> str:
    return name_of(parsed_row(line))


def texts_in(row: Mapping[str, Any]) -> Iterable[str]:
    for turn in row.get("messages") or ():
        if turn.get("role") != "system":
            yield str(turn.get("content") or "").strip()
    yield from (str(reply).strip() for reply in row.get("replies") or ())
    yield str(row.get("reply") or "").strip()


def quotes(quoted: str, texts: Collection[str]) -> bool:
    """Whether what a sample shows is one of the texts, or contains one, or is a part of one."""
    quoted = quoted.strip()
    if quoted in texts:
        return bool(quoted)
    long = [text for text in texts if len(text) >= MIN_QUOTED]
    return any(text in quoted for text in long) or (len(quoted) >= MIN_QUOTED and any(quoted in text for text in long))


def blank_samples(run: Run, folder: Path, texts: Collection[str]) -> None:
    """Samples that show erased words keep their place and lose their texts: in the database, in events.jsonl, whose
    bytes are counted, and in the log, which repeats samples as lines that begin with > and <."""

    def shows(sample: Mapping[str, Any]) -> bool:
        return quotes(str(sample.get("prompt", "")), texts) or quotes(str(sample.get("reply", "")), texts)

    for event in RunEvent.objects.filter(run=run, type="sample").iterator():
        if shows(event.data):
            event.data = without_words(event.data)
            event.save(update_fields=["data"])
    rewrite_in_place(folder / EVENTS, lambda line: blanked(line) if shows(parsed_row(line)) else line)
    rewrite_in_place(folder / LOG, lambda line: b"\n" if line[:2] in (b"> ", b"< ") else line)


def without_words(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The sample without what was said; its right answer goes, for events.jsonl has no bytes to spare."""
    cleaned = {name: value for name, value in sample.items() if name != "reference"}
    return cleaned | {"prompt": REMOVED, "reply": REMOVED}


def blanked(line: bytes) -> bytes:
    short = json.dumps(without_words(parsed_row(line))).encode()
    return short if len(short) < len(line) else b"{}"


def rewrite_in_place(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change lines and keep the length of each in bytes, with spaces before its end."""
    if not path.is_file():
        return
    aside = path.with_name(f"{path.name}.redacted")
    with path.open("rb") as old, aside.open("wb") as new:
        for line in old:
            changed = change(line)
            new.write(line if changed is line else changed.rstrip(b"\n")[: len(line) - 1].ljust(len(line) - 1) + b"\n")
        new.flush()
        os.fsync(new.fileno())
    aside.replace(path)
