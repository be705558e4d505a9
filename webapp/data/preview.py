"""What a person is shown of a file before it is imported, and where to find it afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from django.urls import reverse

from webapp.data.models import Import
from webapp.datasets.models import Corpus

PAGES: Final = {
    "prompts": "data_prompts",
    "demonstrations": "data_demonstrations",
    "rankings": "data_rankings",
    "judgments": "data_judgments",
}
SHOWN_ELSEWHERE: Final = {
    "messages",
    "reply",
    "replies",
    "groups",
    "good",
    "text",
    "place",
    "masked_turns",
    "unanswered",
}
WORDS: Final = {"split": "Held out", "weight": "Weight", "annotator": "Annotator", "strength": "Strength, 0 to 3"}


@dataclass(frozen=True)
class Line:
    """A turn, a reply, or a document. `role` sets how it looks, `who` says what it is."""

    role: str
    who: str
    text: str


@dataclass(frozen=True)
class Sample:
    """A row as it will be read."""

    place: str
    lines: list[Line] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def preview(report: Mapping[str, Any]) -> list[tuple[str, list[Sample]]]:
    """By kind, the first rows of a report of `loading.load`."""
    samples: Mapping[str, list[dict[str, Any]]] = report.get("samples", {})
    return [(kind, [sample_of(item) for item in items]) for kind, items in samples.items()]


def sample_of(item: Mapping[str, Any]) -> Sample:
    facts = [
        (WORDS.get(name, name.capitalize()), str(value))
        for name, value in item.items()
        if name not in SHOWN_ELSEWHERE and value and not (name == "weight" and value == 1)
    ]
    return Sample(str(item.get("place", "")), list(lines_of(item)), facts)


def lines_of(item: Mapping[str, Any]) -> Iterator[Line]:
    masked = item.get("masked_turns", [])
    for number, turn in enumerate(item.get("messages", [])):
        who = f"{turn['role']} (context only, not learned)" if number in masked else turn["role"]
        yield Line(turn["role"], who, turn["content"])
    if "good" in item:
        yield Line("assistant", f"reply, called {'good' if item['good'] else 'bad'}", item.get("reply", ""))
    elif "reply" in item:
        yield Line("assistant", "assistant (learned)", item["reply"])
    for turn in item.get("unanswered", []):
        yield Line(turn["role"], f"{turn['role']} (not answered, not learned)", turn["content"])
    if "text" in item:
        yield Line("user", "document", item["text"])
    yield from ranked_lines(item)


def ranked_lines(item: Mapping[str, Any]) -> Iterator[Line]:
    """The replies of a ranking, best first."""
    for rank, group in enumerate(item.get("groups", []), 1):
        for number in group:
            tied = f", tied with {len(group) - 1} more" if len(group) > 1 else ""
            yield Line("assistant", f"reply, place {rank}{tied}", item["replies"][number])


def brought_in(record: Import) -> list[tuple[str, int, int, str]]:
    """(kind, found, known before, address of the list with these rows) of an import."""
    known_rows = record.report.get("known", {})
    return [
        (kind, count, known_rows.get(kind, 0), address_of(record, kind))
        for kind, count in record.report.get("found", {}).items()
    ]


def address_of(record: Import, kind: str) -> str:
    slug = record.project.slug
    if kind in PAGES:
        return f"{reverse(PAGES[kind], args=[slug])}?{urlencode({'file': record.file_name})}"
    name = record.corpus or record.name.partition(".")[0]
    corpus = Corpus.objects.filter(project=record.project, name=name).first()
    return reverse("data_corpus", args=[slug, corpus.pk]) if corpus else reverse("data", args=[slug])
