"""Items into the tables, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from django.db import connection

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Response, Task
from annotations.services import imported as label_services
from annotations.services import prompts as prompt_services
from annotations.services import tasks as task_services
from webapp.accounts.models import Project, User
from webapp.data.locations import Location
from webapp.data.reports import kind_of
from webapp.data.shapes.model import Item, Kind
from webapp.datasets import services as dataset_services
from webapp.datasets.models import Corpus, Document

MANY_ROWS: Final = 1000  # that came in at once: PostgreSQL's own look at its tables comes up to a minute later
TABLES: Final = [m._meta.db_table for m in (Prompt, Response, Task, Demonstration, Ranking, Judgment, Document)]
Found = tuple[Location, Item]


@dataclass(frozen=True)
class ImportTarget:
    """Where items go: the project, on whose behalf, and for documents the corpus."""

    project: Project
    by: User
    corpus: str
    licence: str
    open_tasks: bool


def store(batch: Iterable[Found], target: ImportTarget) -> dict[Kind, int]:
    """Add a batch; how many of each kind were new. Items of one kind go in together, in the order they stand in."""
    added: dict[Kind, int] = {}
    ordered = sorted(batch, key=lambda located: kind_of(located[1]))
    for kind, group in groupby(ordered, key=lambda located: kind_of(located[1])):
        added[kind] = STORES[kind](list(group), target)
    return added


def refresh_statistics() -> None:
    """Let PostgreSQL count what the tables hold now, so that it plans the next queries for that many rows."""
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {', '.join(map(connection.ops.quote_name, TABLES))}")


def store_documents(located: list[tuple[Location, Any]], target: ImportTarget) -> int:
    """Into the corpus that a document names, else into the one that the person names."""
    added = 0
    by_corpus: dict[tuple[str, str], list[dataset_services.NewDocument]] = {}
    for location, item in located:
        named = (item.corpus or target.corpus, item.licence or target.licence)
        by_corpus.setdefault(named, []).append(dataset_services.NewDocument(item.text, item.format, str(location)))
    for (name, licence), documents in by_corpus.items():
        corpus = Corpus.objects.filter(project=target.project, name=name).first()
        if corpus is None:
            origin = located[0][0].file
            corpus = dataset_services.create_corpus(
                project=target.project, name=name, by=target.by, licence=licence, origin=origin
            )
        added += dataset_services.add_documents(corpus=corpus, documents=documents).added
    return added


def store_prompts(located: list[tuple[Location, Any]], target: ImportTarget) -> int:
    newest = Prompt.objects.filter(project=target.project).order_by("-id").values_list("id", flat=True).first() or 0
    prompts = prompt_services.add_prompts(
        project=target.project,
        conversations=[item.messages for _, item in located],
        source=Prompt.Source.IMPORT,
        by=target.by,
        source_refs=[str(location) for location, _ in located],
        splits=[item.split for _, item in located],
        checks=[prompt_services.PromptCheck(item.reference, item.data) for _, item in located],
    )
    new = list({prompt.pk: prompt for prompt in prompts if prompt.pk > newest}.values())
    if target.open_tasks:
        stored = Prompt.objects.filter(pk__in={prompt.pk for prompt in prompts})
        task_services.open_missing_write_tasks(prompts=stored, source_ref="import")
    return len(new)


def store_demonstrations(located: list[tuple[Location, Any]], target: ImportTarget) -> int:
    rows = [
        label_services.ImportedDemonstration(
            item.messages, item.reply, masked_turns=item.masked_turns, **imported_label_fields(item, location)
        )
        for location, item in located
    ]
    return label_services.import_demonstrations(project=target.project, author=target.by, rows=rows)


def store_rankings(located: list[tuple[Location, Any]], target: ImportTarget) -> int:
    rows = [
        label_services.ImportedRanking(
            item.messages,
            item.replies,
            item.groups,
            item.strength,
            ratings=item.ratings,
            flags=item.flags,
            reason=item.reason,
            **imported_label_fields(item, location),
        )
        for location, item in located
    ]
    return label_services.import_rankings(project=target.project, author=target.by, rows=rows)


def store_judgments(located: list[tuple[Location, Any]], target: ImportTarget) -> int:
    rows = [
        label_services.ImportedJudgment(item.messages, item.reply, item.good, **imported_label_fields(item, location))
        for location, item in located
    ]
    return label_services.import_judgments(project=target.project, author=target.by, rows=rows)


def imported_label_fields(item: Any, location: Location) -> dict[str, Any]:
    return {
        "source_ref": str(location),
        "annotator": item.annotator,
        "weight": item.weight,
        "split": item.split,
        "created_at": datetime.fromisoformat(item.created_at) if item.created_at else None,
        "active_seconds": item.active_seconds,
    }


STORES: Final[dict[Kind, Callable[[list[tuple[Location, Any]], ImportTarget], int]]] = {
    "text": store_documents,
    "prompts": store_prompts,
    "demonstrations": store_demonstrations,
    "rankings": store_rankings,
    "judgments": store_judgments,
}
