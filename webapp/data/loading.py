"""From files to rows of the project: what is taken, what is left out and why, all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from django.db import transaction

from webapp.accounts.models import Project, User
from webapp.data.files import Place, file_format, read
from webapp.data.reports import KINDS, MAX_ERRORS, Report, kind_of
from webapp.data.shapes import (
    DemonstrationItem,
    Item,
    JudgmentItem,
    Kind,
    LeftOut,
    PromptItem,
    RankingItem,
    UnknownShape,
    items,
)
from webapp.data.storing import Found, Target, store
from webapp.errors import BadInput

__all__ = ["KINDS", "Report", "load"]

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
) -> Report:
    """Read the files into the project, in one transaction. Loading the same rows again adds nothing.

    `kind` takes only items of that kind (with "prompts", the prompts of labels too). Documents go into the corpus of
    that name, or of the file's. Raises BadInput that lists the bad lines, with nothing loaded, unless `skip_bad`.
    """
    report = Report()
    with transaction.atomic():
        for path in paths:
            place_of = (lambda n, path=path: on_position(path, n)) if on_position else None
            target = Target(project, by, corpus or path.name.partition(".")[0], licence, open_tasks)
            found = collect(path, kind=kind, report=report, skip_bad=skip_bad, on_position=place_of)
            for batch in batched(found, BATCH):
                if not dry_run:
                    report.added.update(store(batch, target))
        if report.errors and not skip_bad:
            more = "\n…" if report.error_count >= MAX_ERRORS else ""
            raise BadInput("Nothing was loaded, because some rows cannot be read:\n" + "\n".join(report.errors) + more)
    return report


def collect(
    path: Path, *, kind: Kind | None, report: Report, skip_bad: bool, on_position: Callable[[int], None] | None
) -> Iterator[Found]:
    """The file's items of the wanted kind; the rest goes into the report."""
    for place, record in lines_as_prompts(path) if kind == "prompts" and is_text(path) else read(path, on_position):
        try:
            for item in items(record):
                wanted = of_kind(item, kind)
                if isinstance(wanted, LeftOut):
                    report.leave_out(wanted.reason, place)
                else:
                    report.take(wanted, place)
                    yield place, wanted
        except UnknownShape as error:
            report.add_error(UNKNOWN, f"{place}: {error}", place)
            if not skip_bad and report.error_count >= MAX_ERRORS:
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


def of_kind(item: Item, kind: Kind | None) -> Item:
    if isinstance(item, LeftOut) or kind is None or isinstance(item, KINDS[kind]):
        return item
    if kind == "prompts" and isinstance(item, DemonstrationItem | RankingItem | JudgmentItem):
        return PromptItem(whole_prompt(item), item.split)
    return LeftOut(f"not asked for ({kind_of(item)})")


def whole_prompt(item: DemonstrationItem | RankingItem | JudgmentItem) -> list[dict[str, str]]:
    """The conversation up to the last user's turn: where a chat went on after the reply, that turn too."""
    if isinstance(item, DemonstrationItem) and item.unanswered:
        return [*item.messages, {"role": "assistant", "content": item.reply}, *item.unanswered]
    return item.messages
