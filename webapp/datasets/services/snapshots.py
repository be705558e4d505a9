"""Freezing rows, so that a run can be traced to them and repeated."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TextIO

from django.conf import settings
from django.db import transaction
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotations import export
from training.contract import Row, TextRow, describe
from webapp.accounts.models import Project, User
from webapp.datasets.models import Corpus, Snapshot, SnapshotItem
from webapp.datasets.services.corpora import documents_of
from webapp.errors import BadInput, Conflict
from webapp.params import MAX_BIGINT
from webapp.registry.artefacts import folder_digest, publish_folder, sha256_of

MAX_IDS: Final = 100_000
MAX_CORPORA: Final = 1000
BATCH = 5000
Key = Annotated[int, Field(ge=1, le=MAX_BIGINT)]
Limit = Annotated[int, Field(ge=0, le=MAX_BIGINT)] | None
EXPORTS = {
    Snapshot.Kind.DEMONSTRATIONS: export.demonstration_rows,
    Snapshot.Kind.RANKINGS: export.ranking_rows,
    Snapshot.Kind.JUDGMENTS: export.judgment_rows,
    Snapshot.Kind.PROMPTS: export.prompt_rows,
}
WHAT_TO_DO = {
    Snapshot.Kind.DOCUMENTS: "There is no text yet. Add documents to a corpus first.",
    Snapshot.Kind.DEMONSTRATIONS: "There are no accepted demonstrations yet. Write or import some first.",
    Snapshot.Kind.RANKINGS: "There are no rankings yet. Let people rank replies, or import rankings first.",
    Snapshot.Kind.JUDGMENTS: "There are no judgments yet. Import replies that are labeled good or bad first.",
    Snapshot.Kind.PROMPTS: "There are no prompts yet. Write or import some first.",
}


@transaction.atomic
def create_snapshot(
    *,
    project: Project,
    kind: str,
    by: User,
    name: str = "",
    filters: dict[str, Any] | None = None,
    measures_only: bool = False,
) -> Snapshot:
    """Freeze the rows that a kind has now.

    `measures_only`: all of them are held out in this snapshot, those that others may learn from too, so that a stage
    which only measures reads them and no stage learns from them.

    `filters`: `split` (train or heldout, else both), `limit` and `heldout_limit` (most rows of each), `ids` (only these
    rows), and for documents `corpora` (ids). Raises Conflict if no row is left.
    """
    chosen, filters = checked_filters(project, kind, filters or {})
    name = name.strip() or f"{chosen.label} {Snapshot.objects.filter(project=project, kind=chosen).count() + 1}"
    settings.RUNS_FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.RUNS_FOLDER, prefix="snapshot-") as scratch:
        folder = Path(scratch)
        items: list[tuple[int, bool]] = []
        counts = {"train": 0, "heldout": 0, "characters": 0}
        for split in ("train", "heldout"):
            (folder / f"{split}.jsonl").touch()
            place = "heldout" if measures_only else split
            with (folder / f"{place}.jsonl").open("a", encoding="utf-8") as file:
                ids, characters = write_snapshot_rows(file, snapshot_rows(project, chosen, split, filters))
            items += [(row, place == "heldout") for row in ids]
            counts[place] += len(ids)
            counts["characters"] += characters
        if not items:
            raise Conflict(WHAT_TO_DO[chosen] if not filters else "No row is left with these filters.", code="no_rows")
        files = {f"{split}.jsonl": sha256_of(folder / f"{split}.jsonl") for split in ("train", "heldout")}
        address = publish_folder(folder, folder_name="snapshots", files=files)
    snapshot = Snapshot(
        project=project,
        kind=chosen,
        name=name,
        filters=filters | ({"measures_only": True} if measures_only else {}),
        content_hash=folder_digest(files),
        files={split: f"{address}/{split}.jsonl" for split in ("train", "heldout")},
        counts=counts,
        created_by=by,
    )
    snapshot.full_clean()
    snapshot.save()
    SnapshotItem.objects.bulk_create(
        (SnapshotItem(snapshot=snapshot, row=row, heldout=heldout) for row, heldout in items), batch_size=BATCH
    )
    return snapshot


class Filters(BaseModel):
    """Which rows of a kind a snapshot holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    split: Literal["train", "heldout", ""] | None = None
    limit: Limit = None
    heldout_limit: Limit = None
    ids: list[Key] = Field(default=[], max_length=MAX_IDS)
    corpora: list[Key] = Field(default=[], max_length=MAX_CORPORA)


def checked_filters(project: Project, kind: str, filters: dict[str, Any]) -> tuple[Snapshot.Kind, dict[str, Any]]:
    if kind not in Snapshot.Kind.values:
        raise BadInput(f"There is no snapshot kind “{kind}”. Choose one of {', '.join(Snapshot.Kind.values)}.")
    try:
        Filters.model_validate(filters)
    except ValidationError as error:
        field = ".".join(["filters", *(str(loc) for loc in error.errors()[0]["loc"])])
        raise BadInput(f"filters: {describe(error.errors(), Filters)}.", field=field) from error
    chosen = {key: value for key, value in filters.items() if value not in (None, "", [])}
    corpora = set(chosen.get("corpora", []))
    foreign = corpora - set(Corpus.objects.filter(project=project, pk__in=corpora).values_list("pk", flat=True))
    if foreign:
        raise BadInput(f"corpora: there is no {min(foreign)} in this project.", field="filters.corpora")
    return Snapshot.Kind(kind), chosen


def snapshot_rows(
    project: Project, kind: Snapshot.Kind, split: str, filters: dict[str, Any]
) -> Iterator[tuple[int, Row]]:
    """(id, contract row) of what belongs to a split and passes the filters."""
    if filters.get("split", split) != split:
        return
    ids = set(filters.get("ids", []))
    limit = filters.get("limit" if split == "train" else "heldout_limit")
    row_count = 0
    if kind == Snapshot.Kind.DOCUMENTS:
        rows: Iterator[Row] = corpus_rows(project, filters.get("corpora", [])) if split == "train" else iter(())
    else:
        rows = iter(EXPORTS[kind](project, split, project.system_prompt))
    for row in rows:
        if limit is not None and row_count >= limit:
            return
        number = int(row.id.rpartition(":")[2])
        if not ids or number in ids:
            row_count += 1
            yield number, row


def count_rows(*, project: Project, kind: str, split: str, at_most: int) -> int:
    """How many rows of a split a snapshot made now would hold; counting ends at `at_most`."""
    return sum(1 for _ in islice(snapshot_rows(project, Snapshot.Kind(kind), split, {}), at_most))


def corpus_rows(project: Project, corpora: list[int]) -> Iterator[TextRow]:
    """What is held out of text is decided by the corpus stage, after copies are found."""
    for document in documents_of(corpora, project):
        yield TextRow(
            id=f"document:{document.pk}",
            text=document.text,
            source=document.corpus.name,
            format=document.format,
        )


def write_snapshot_rows(file: TextIO, rows: Iterator[tuple[int, Row]]) -> tuple[list[int], int]:
    """Write JSON Lines; the ids, and how many characters were written."""
    ids, characters = [], 0
    for number, row in rows:
        line = row.model_dump_json(exclude_defaults=True)
        file.write(line + "\n")
        ids.append(number)
        characters += len(line)
    return ids, characters
