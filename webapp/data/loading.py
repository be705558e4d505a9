"""From files to rows of the project: what is taken, what is left out and why, all of it or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from django.db import transaction

from annotations.models import Prompt
from annotations.services import prompts as prompt_services
from annotations.services import records as label_services
from annotations.services import tasks as task_services
from webapp.accounts.models import Project, User
from webapp.data.files import Place, file_format, read
from webapp.data.shapes import (
    DemonstrationItem,
    Document,
    Item,
    Kind,
    LeftOut,
    PromptItem,
    RankingItem,
    UnknownShape,
    items,
)
from webapp.errors import BadInput
from webapp.runs import services as run_services
from webapp.runs.models import Corpus
from webapp.text import clean_text

KINDS: Final[dict[Kind, type]] = {
    "text": Document,
    "prompts": PromptItem,
    "demonstrations": DemonstrationItem,
    "rankings": RankingItem,
}
BATCH: Final = 1000
MOST_ERRORS: Final = 20
Found = tuple[Place, Item]


@dataclass
class Reason:
    """How many rows were left out for it, and where the first few stand."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: Place) -> None:
        self.count += 1
        if len(self.places) < 3:
            self.places.append(str(place))


@dataclass
class Report:
    found: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Reason] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, place: Place) -> None:
        self.left_out.setdefault(reason, Reason()).add(place)

    def as_json(self) -> dict[str, Any]:
        return {
            "found": dict(self.found),
            "known": {kind: n - self.added[kind] for kind, n in self.found.items()},
            "left_out": {reason: asdict(left) for reason, left in self.left_out.items()},
        }


def load(
    *,
    project: Project,
    by: User,
    paths: Sequence[Path],
    kind: Kind | None = None,
    corpus: str = "",
    licence: str = "",
    open_tasks: bool = False,
    skip_bad: bool = False,
    dry_run: bool = False,
    on_position: Callable[[Path, int], None] | None = None,
) -> Report:
    """Read the files into the project, in one transaction. Loading the same rows again adds nothing.

    `kind` takes only items of that kind (with "prompts", the prompts of labels too). Documents go into the corpus of
    that name, or of the file's. Raises BadInput that lists the bad lines, with nothing loaded, unless `skip_bad`.
    """
    report = Report()
    with transaction.atomic():
        for path in paths:
            place_of = (lambda n, path=path: on_position(path, n)) if on_position else None
            found = collect(path, kind=kind, report=report, on_position=place_of)
            name = corpus or path.name.partition(".")[0]
            for batch in batched(found, BATCH):
                if not dry_run:
                    store(
                        batch,
                        project=project,
                        by=by,
                        corpus=name,
                        licence=licence,
                        open_tasks=open_tasks,
                        report=report,
                    )
        if report.errors and not skip_bad:
            more = "\n…" if len(report.errors) == MOST_ERRORS else ""
            raise BadInput("Nothing was loaded, because some rows cannot be read:\n" + "\n".join(report.errors) + more)
    return report


def collect(
    path: Path, *, kind: Kind | None, report: Report, on_position: Callable[[int], None] | None
) -> Iterator[Found]:
    """The file's items of the wanted kind; the rest goes into the report."""
    for place, record in lines_as_prompts(path) if kind == "prompts" and is_text(path) else read(path, on_position):
        try:
            for item in items(record):
                wanted = of_kind(item, kind)
                if isinstance(wanted, LeftOut):
                    report.leave_out(wanted.reason, place)
                else:
                    report.found[kind_of(wanted)] += 1
                    yield place, wanted
        except UnknownShape as error:
            report.leave_out("of no shape that we know", place)
            report.errors.append(f"{place}: {error}")
            if len(report.errors) >= MOST_ERRORS:
                return


def batched(found: Iterator[Found], size: int) -> Iterator[list[Found]]:
    while batch := list(islice(found, size)):
        yield batch


def is_text(path: Path) -> bool:
    return file_format(path) in (".txt", ".md")


def lines_as_prompts(path: Path) -> Iterator[tuple[Place, str]]:
    """Plain text asked for as prompts: one a line."""
    for place, record in read(path):
        text = record if isinstance(record, str) else record["text"]
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield Place(place.file, number), line.strip()


def kind_of(item: Item) -> Kind:
    return next(kind for kind, cls in KINDS.items() if isinstance(item, cls))


def of_kind(item: Item, kind: Kind | None) -> Item:
    if isinstance(item, LeftOut) or kind is None or isinstance(item, KINDS[kind]):
        return item
    if kind == "prompts" and isinstance(item, DemonstrationItem | RankingItem):
        return PromptItem(item.messages)
    return LeftOut(f"not asked for ({kind_of(item)})")


# ----------------------------------------------------------------------------------------------------- into the tables


def store(
    batch: Iterable[Found], *, project: Project, by: User, corpus: str, licence: str, open_tasks: bool, report: Report
) -> None:
    """Add a batch. Items of one kind go in together, in the order they stand in."""
    ordered = sorted(batch, key=lambda found: kind_of(found[1]))
    for kind, group in groupby(ordered, key=lambda found: kind_of(found[1])):
        found = list(group)
        if kind == "text":
            report.added[kind] += store_documents(found, project=project, by=by, name=corpus, licence=licence)
        elif kind == "prompts":
            report.added[kind] += store_prompts(found, project=project, by=by, open_tasks=open_tasks)
        elif kind == "demonstrations":
            rows = [
                label_services.ImportedDemonstration(cleaned(item.messages), clean_text(item.reply), str(place))
                for place, item in found
                if isinstance(item, DemonstrationItem)
            ]
            report.added[kind] += label_services.import_demonstrations(project=project, author=by, rows=rows)
        else:
            rankings = [
                label_services.ImportedRanking(
                    cleaned(item.messages), [clean_text(r) for r in item.replies], item.groups, source_ref=str(place)
                )
                for place, item in found
                if isinstance(item, RankingItem)
            ]
            report.added[kind] += label_services.import_rankings(project=project, author=by, rows=rankings)


def store_documents(found: list[Found], *, project: Project, by: User, name: str, licence: str) -> int:
    corpus = Corpus.objects.filter(project=project, name=name).first()
    if corpus is None:
        corpus = run_services.create_corpus(project=project, name=name, by=by, licence=licence, origin=found[0][0].file)
    documents = [
        run_services.NewDocument(clean_text(item.text), "html" if item.format == "html" else "text", str(place))
        for place, item in found
        if isinstance(item, Document)
    ]
    return run_services.add_documents(corpus=corpus, documents=documents).added


def store_prompts(found: list[Found], *, project: Project, by: User, open_tasks: bool) -> int:
    conversations = [cleaned(item.messages) for _, item in found if isinstance(item, PromptItem)]
    newest = Prompt.objects.filter(project=project).order_by("-id").values_list("id", flat=True).first() or 0
    prompts = prompt_services.add_prompts(
        project=project,
        conversations=conversations,
        source=Prompt.Source.IMPORT,
        by=by,
        source_refs=[str(place) for place, _ in found],
    )
    new = list({prompt.pk: prompt for prompt in prompts if prompt.pk > newest}.values())
    if open_tasks and new:
        task_services.open_write_tasks(prompts=new, source_ref="import")
    return len(new)


def cleaned(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": clean_text(message["content"])} for message in messages]
