"""From files to rows of the project: what is taken, what is left out and why, all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from django.db import transaction

from webapp.accounts.models import Project, User
from webapp.data.files import file_format, read_file_rows
from webapp.data.locations import BadRow, Location, Record
from webapp.data.packing import Budget
from webapp.data.reports import KINDS, MAX_ERRORS, ImportReport, kind_of
from webapp.data.shapes import (
    DemonstrationItem,
    Grouper,
    Item,
    JudgmentItem,
    Kind,
    LeftOut,
    Part,
    PromptItem,
    RankingItem,
    UnknownShape,
    parts_of,
)
from webapp.data.storing import MANY_ROWS, Found, ImportTarget, refresh_statistics, store
from webapp.errors import BadInput

__all__ = ["KINDS", "ImportReport", "load"]

BATCH: Final = 1000
UNKNOWN: Final = "of no shape that we know"


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
) -> ImportReport:
    """Read the files into the project, in one transaction. Loading the same rows again adds nothing.

    `kind` takes only items of that kind (with "prompts", the prompts of labels too). Documents go into the corpus of
    that name, or of the file's. Raises BadInput that lists the bad lines, with nothing loaded, unless `skip_bad`.
    """
    report, budget = ImportReport(), Budget()
    with transaction.atomic():
        for path in paths:
            place_of = (lambda n, path=path: on_position(path, n)) if on_position else None
            target = ImportTarget(project, by, corpus or path.name.partition(".")[0], licence, open_tasks)
            items = collect(path, kind=kind, report=report, skip_bad=skip_bad, budget=budget, on_position=place_of)
            for batch in batched(items, BATCH):
                if not dry_run:
                    report.added.update(store(batch, target))
        if report.errors and not skip_bad:
            and_more = "\n…" if report.error_count >= MAX_ERRORS else ""
            raise BadInput(
                "Nothing was loaded, because some rows cannot be read:\n" + "\n".join(report.errors) + and_more
            )
        if report.added.total() >= MANY_ROWS:
            transaction.on_commit(refresh_statistics, robust=True)
    return report


def collect(
    path: Path,
    *,
    kind: Kind | None,
    report: ImportReport,
    skip_bad: bool,
    budget: Budget,
    on_position: Callable[[int], None] | None,
) -> Iterator[Found]:
    """The file's items of the wanted kind; the rest goes into the report."""
    grouper: Grouper[Location] = Grouper()
    rows = read_file_rows(
        path, on_position=on_position, on_note=report.note, budget=budget, by_line=kind == "prompts" and is_text(path)
    )
    count = 0
    for count, (location, record) in enumerate(rows, 1):  # noqa: B007 (the code below asks whether there were any)
        if isinstance(record, BadRow):
            report.add_error(record.reason, record.sentence, location)
        else:
            for item in parts_in(record, location, report):
                yield from wanted(grouper.add(location, item), kind, report)
        if report.error_count >= MAX_ERRORS and not skip_bad:
            return
    if not count:
        report.note("the file holds no rows", Location(path.name, 1))
    yield from wanted(grouper.flush(), kind, report)


def parts_in(record: Record, location: Location, report: ImportReport) -> list[Item | Part]:
    """What a record holds; what it took is noted in the report."""
    try:
        items, row = parts_of(record)
    except UnknownShape as error:
        report.add_error(UNKNOWN, f"{location}: {error}", location)
        return []
    if any(not isinstance(item, LeftOut) for item in items):
        report.add_unused(row.unused_as_named())
        for note in row.notes:
            report.note(note, location)
    return items


def wanted(items: Iterator[Found], kind: Kind | None, report: ImportReport) -> Iterator[Found]:
    for location, item in items:
        requested = of_kind(item, kind)
        if isinstance(requested, LeftOut):
            report.leave_out(requested.reason, location)
        else:
            report.take(requested, location)
            yield location, requested


def batched(items: Iterator[Found], size: int) -> Iterator[list[Found]]:
    while batch := list(islice(items, size)):
        yield batch


def is_text(path: Path) -> bool:
    return file_format(path) in (".txt", ".md", ".zip")


def of_kind(item: Item, kind: Kind | None) -> Item:
    if isinstance(item, LeftOut) or kind is None or isinstance(item, KINDS[kind]):
        return item
    if kind == "prompts" and isinstance(item, DemonstrationItem | RankingItem | JudgmentItem):
        reference = item.reply if isinstance(item, DemonstrationItem) and not item.unanswered else None
        return PromptItem(whole_prompt(item), item.split, reference)
    return LeftOut(f"not asked for ({kind_of(item)})")


def whole_prompt(item: DemonstrationItem | RankingItem | JudgmentItem) -> list[dict[str, str]]:
    """The conversation up to the last user's turn: where a chat went on after the reply, that turn too."""
    if isinstance(item, DemonstrationItem) and item.unanswered:
        return [*item.messages, {"role": "assistant", "content": item.reply}, *item.unanswered]
    return item.messages
