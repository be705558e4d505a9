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
class PreviewLine:
    """A turn, a reply, or a document. `role` sets how it looks, `who` says what it is."""

    role: str
    who: str
    text: str


@dataclass(frozen=True)
class SampledRow:
    """A row as it will be read."""

    place: str
    lines: list[PreviewLine] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def preview_samples(report: Mapping[str, Any]) -> list[tuple[str, list[SampledRow]]]:
    """By kind, the first rows of a report of `loading.load`."""
    samples: Mapping[str, list[dict[str, Any]]] = report.get("samples", {})
    return [(kind, [sample_of(item) for item in items]) for kind, items in samples.items()]


def sample_of(item: Mapping[str, Any]) -> SampledRow:
    facts = [
        (WORDS.get(name, name.capitalize()), str(value))
        for name, value in item.items()
        if name not in SHOWN_ELSEWHERE and value and not (name == "weight" and value == 1)
    ]
    return SampledRow(str(item.get("place", "")), list(preview_lines(item)), facts)


def preview_lines(item: Mapping[str, Any]) -> Iterator[PreviewLine]:
    masked = item.get("masked_turns", [])
    for number, turn in enumerate(item.get("messages", [])):
        who = f"{turn['role']} (context only, not learned)" if number in masked else turn["role"]
        yield PreviewLine(turn["role"], who, turn["content"])
    if "good" in item:
        yield PreviewLine("assistant", f"reply, called {'good' if item['good'] else 'bad'}", item.get("reply", ""))
    elif "reply" in item:
        yield PreviewLine("assistant", "assistant (learned)", item["reply"])
    for turn in item.get("unanswered", []):
        yield PreviewLine(turn["role"], f"{turn['role']} (not answered, not learned)", turn["content"])
    if "text" in item:
        yield PreviewLine("user", "document", item["text"])
    yield from ranked_lines(item)


def ranked_lines(item: Mapping[str, Any]) -> Iterator[PreviewLine]:
    """The replies of a ranking, best first."""
    for rank, group in enumerate(item.get("groups", []), 1):
        for number in group:
            tied = f", tied with {len(group) - 1} more" if len(group) > 1 else ""
            yield PreviewLine("assistant", f"reply, place {rank}{tied}", item["replies"][number])


def brought_in(record: Import) -> list[tuple[str, int, int, str]]:
    """(kind, found, known before, address of the list with these rows) of an import."""
    known_rows = record.report.get("known", {})
    return [
        (kind, count, known_rows.get(kind, 0), list_address(record, kind))
        for kind, count in record.report.get("found", {}).items()
    ]


def list_address(record: Import, kind: str) -> str:
    slug = record.project.slug
    if kind in PAGES:
        return f"{reverse(PAGES[kind], args=[slug])}?{urlencode({'file': record.file_name})}"
    name = record.corpus or record.name.partition(".")[0]
    corpus = Corpus.objects.filter(project=record.project, name=name).first()
    return reverse("data_corpus", args=[slug, corpus.pk]) if corpus else reverse("data", args=[slug])
