"""The lists of the data pages: filtered, newest first, a page at a time by key, so the thousandth page is as fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Count, Model, Q, QuerySet

from annotations import selectors as labels
from annotations.models import Demonstration, Flag, Judgment, Prompt, Ranking, Response, Task
from webapp.accounts.models import Project, User
from webapp.datasets.models import Corpus, Document, Snapshot
from webapp.params import read_choice, read_int, read_text

PAGE = 50
FLAG_LABELS: Final[dict[str, str]] = {value: str(label) for value, label in Flag.choices}


@dataclass(frozen=True)
class RankedReply:
    """A reply as somebody ranked it. `rating` is 1 to 7, or 0 where none was given."""

    text: str
    rating: int
    flags: list[str]


@dataclass(frozen=True)
class Page:
    """`older` is the key with which the next page begins, none on the last."""

    rows: list[Any]
    older: int | None


def page(rows: QuerySet[Any], before: int | None, size: int = PAGE) -> Page:
    """The newest `size` rows whose id is below `before`."""
    if before is not None:
        rows = rows.filter(pk__lt=before)
    page_rows: list[Model] = list(rows.order_by("-pk")[: size + 1])
    return Page(page_rows[:size], page_rows[size - 1].pk if len(page_rows) > size else None)


def prompts(project: Project, filters: Mapping[str, str]) -> QuerySet[Prompt]:
    rows = Prompt.objects.filter(project=project).annotate(
        replies=Count("responses", distinct=True), wanted=Count("tasks", filter=Q(tasks__state="open"), distinct=True)
    )
    if text := read_text(filters, "q"):
        rows = rows.filter(messages__icontains=text)
    if split := read_choice(filters, "split", Prompt.Split.values):
        rows = rows.filter(split=split)
    if source := read_choice(filters, "source", Prompt.Source.values):
        rows = rows.filter(source=source)
    if state := read_choice(filters, "state", ["live", "withdrawn"]):
        rows = rows.filter(withdrawn_at__isnull=state == "live")
    return from_file(rows, filters)


def demonstrations(project: Project, filters: Mapping[str, str]) -> QuerySet[Demonstration]:
    rows = Demonstration.objects.filter(prompt__project=project).select_related("prompt", "author", "response")
    if text := read_text(filters, "q"):
        rows = rows.filter(Q(response__text__icontains=text) | Q(prompt__messages__icontains=text))
    if state := read_choice(filters, "state", [*Demonstration.State.values, "retracted"]):
        rows = (
            rows.filter(retracted_at__isnull=False)
            if state == "retracted"
            else rows.filter(state=state, retracted_at=None)
        )
    return of_author(rows, filters)


def rankings(project: Project, filters: Mapping[str, str]) -> QuerySet[Ranking]:
    rows = Ranking.objects.filter(prompt__project=project).select_related("prompt", "author")
    if text := read_text(filters, "q"):
        rows = rows.filter(Q(prompt__messages__icontains=text) | Q(reason__icontains=text))
    if state := read_choice(filters, "state", ["live", "retracted"]):
        rows = rows.filter(retracted_at__isnull=state != "retracted")
    return of_author(rows, filters)


def ranked_replies(rankings: Sequence[Ranking]) -> dict[int, list[list[RankedReply]]]:
    """By ranking, its groups of replies, the best first, each with what was said about it."""
    reply_ids = {pk for ranking in rankings for group in ranking.groups for pk in group}
    texts = dict(Response.objects.filter(pk__in=reply_ids).values_list("pk", "text"))
    return {
        ranking.pk: [
            [
                RankedReply(
                    texts.get(pk, ""),
                    ranking.ratings.get(str(pk), 0),
                    [FLAG_LABELS.get(flag, flag) for flag in ranking.flags.get(str(pk), [])],
                )
                for pk in group
            ]
            for group in ranking.groups
        ]
        for ranking in rankings
    }


def judgments(project: Project, filters: Mapping[str, str]) -> QuerySet[Judgment]:
    rows = Judgment.objects.filter(prompt__project=project).select_related("prompt", "author", "response")
    if text := read_text(filters, "q"):
        rows = rows.filter(Q(response__text__icontains=text) | Q(prompt__messages__icontains=text))
    if state := read_choice(filters, "state", ["live", "retracted"]):
        rows = rows.filter(retracted_at__isnull=state != "retracted")
    if verdict := read_choice(filters, "verdict", ["good", "bad"]):
        rows = rows.filter(good=verdict == "good")
    return of_author(rows, filters)


def from_file(rows: QuerySet[Any], filters: Mapping[str, str]) -> QuerySet[Any]:
    """The rows that a file of this name brought in, by their source: its name and a line."""
    name = read_text(filters, "file")
    return rows.filter(source_ref__startswith=f"{name}:") if name else rows


def of_author(rows: QuerySet[Any], filters: Mapping[str, str]) -> QuerySet[Any]:
    rows = from_file(rows, filters)
    author = read_int(filters, "author")
    return rows if author is None else rows.filter(author_id=author)


def tasks(project: Project, filters: Mapping[str, str]) -> QuerySet[Task]:
    rows = Task.objects.filter(project=project).select_related("prompt")
    for name, choices in (("kind", Task.Kind.values), ("state", Task.State.values)):
        if value := read_choice(filters, name, choices):
            rows = rows.filter(**{name: value})
    if text := read_text(filters, "q"):
        rows = rows.filter(prompt__messages__icontains=text)
    return rows


def authors(project: Project) -> list[tuple[str, str]]:
    """Whoever may have labeled, as choices."""
    people = (
        User.objects.filter(Q(memberships__project=project) | Q(pk=project.created_by_id))
        .distinct()
        .order_by("name", "email")
    )
    return [(str(person.pk), str(person)) for person in people]


def corpora(project: Project) -> QuerySet[Corpus]:
    return Corpus.objects.filter(project=project).annotate(size=Count("documents"))


def documents(corpus: Corpus, filters: Mapping[str, str]) -> QuerySet[Document]:
    rows = Document.objects.filter(corpus=corpus)
    text = read_text(filters, "q")
    return rows.filter(text__icontains=text) if text else rows


def data_counts(project: Project) -> dict[str, int]:
    """How much there is of everything, for the head of the data pages."""
    by_kind = labels.label_counts(project)
    return {
        "prompts": labels.live_prompts(project).count(),
        "demonstrations": by_kind.get("write", 0),
        "rankings": by_kind.get("rank", 0),
        "judgments": Judgment.objects.filter(prompt__project=project, retracted_at=None).count(),
        "tasks": sum(labels.open_task_counts(project).values()),
        "documents": Document.objects.filter(corpus__project=project).count(),
        "snapshots": Snapshot.objects.filter(project=project).count(),
    }
