"""What reading files came to: what is there, what was left out and why, and how rows will be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from webapp.data.locations import Location
from webapp.data.shapes.model import (
    DemonstrationItem,
    DocumentItem,
    Item,
    JudgmentItem,
    Kind,
    PromptItem,
    RankingItem,
)

KINDS: Final[dict[Kind, type]] = {
    "text": DocumentItem,
    "prompts": PromptItem,
    "demonstrations": DemonstrationItem,
    "rankings": RankingItem,
    "judgments": JudgmentItem,
}
KIND_OF: Final[dict[type, Kind]] = {cls: kind for kind, cls in KINDS.items()}
MAX_ERRORS: Final = 20
MAX_REASONS: Final = 200
MAX_COLUMNS: Final = 200
MAX_SAMPLES: Final = 2
MAX_SAMPLE_TEXT: Final = 2000
MAX_SAMPLE_PARTS: Final = 40  # turns of a chat, or replies
OTHER: Final = "other reasons"


def kind_of(item: Item) -> Kind:
    return KIND_OF[type(item)]


@dataclass
class Reason:
    """How many rows were left out for it, and where the first few stand."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, location: Location) -> None:
        self.count += 1
        if len(self.places) < 3:
            self.places.append(str(location))


@dataclass
class ImportReport:
    """`left_out` says why rows were not taken, `notes` what else a person should know (an encoding that was guessed, a
    turn that was dropped), `unused_columns` in how many rows that were taken a column said something and was not used,
    `samples` how the first rows of each kind are read. `errors` are rows that could not be read at all."""

    found: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Reason] = field(default_factory=dict)
    notes: dict[str, Reason] = field(default_factory=dict)
    unused_columns: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    error_count: int = 0

    def take(self, item: Item, location: Location) -> None:
        kind = kind_of(item)
        self.found[kind] += 1
        samples = self.samples.setdefault(kind, [])
        if len(samples) < MAX_SAMPLES:
            samples.append(sample_of(item, location))

    def leave_out(self, reason: str, location: Location) -> None:
        count_reason(self.left_out, reason, location)

    def note(self, text: str, location: Location) -> None:
        count_reason(self.notes, text, location)

    def add_error(self, reason: str, sentence: str, location: Location) -> None:
        """A row that cannot be read: it stops the import unless bad rows are skipped."""
        self.leave_out(reason, location)
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(printable(sentence))

    def add_unused(self, columns: Iterable[str]) -> None:
        for column in map(printable, columns):
            if column in self.unused_columns or len(self.unused_columns) < MAX_COLUMNS:
                self.unused_columns[column] += 1

    def as_json(self) -> dict[str, Any]:
        """For the page: `found`, `known` (kind → rows that were there before), `left_out` and `notes` (reason → count,
        places), `unused_columns` (column → rows), `samples` (kind → up to two items), `errors` (sentences)."""
        return {
            "found": dict(self.found),
            "known": {kind: n - self.added[kind] for kind, n in self.found.items()},
            "left_out": {reason: asdict(rows) for reason, rows in self.left_out.items()},
            "notes": {text: asdict(noted) for text, noted in self.notes.items()},
            "unused_columns": dict(self.unused_columns.most_common()),
            "samples": self.samples,
            "errors": self.errors,
        }


def printable(text: str) -> str:
    """Text that the database can hold, whatever the file had in its names."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()


def count_reason(reasons: dict[str, Reason], reason: str, location: Location) -> None:
    reason = printable(reason)
    if reason not in reasons and len(reasons) >= MAX_REASONS:
        reason = OTHER
    reasons.setdefault(reason, Reason()).add(location)


def sample_of(item: Item, location: Location) -> dict[str, Any]:
    """The item as it will be read, as JSON, with long texts cut; fields that say nothing are left away."""
    fields = {name: value for name, value in asdict(item).items() if value not in (None, "", [], {})}
    return {**shortened_value(fields), "place": str(location)}


def shortened_value(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value if len(value) <= MAX_SAMPLE_TEXT else value[:MAX_SAMPLE_TEXT] + " […]")
    if isinstance(value, list) and len(value) > MAX_SAMPLE_PARTS:
        half = MAX_SAMPLE_PARTS // 2
        between = {"role": "…", "content": f"{len(value) - 2 * half + 1:,} more turns"}
        is_chat = all(isinstance(element, dict) for element in value)
        value = [*value[: half - 1], between, *value[-half:]] if is_chat else value[:half]
    if isinstance(value, list):
        return [shortened_value(element) for element in value]
    if isinstance(value, dict):
        return {str(name): shortened_value(element) for name, element in value.items()}
    return value
