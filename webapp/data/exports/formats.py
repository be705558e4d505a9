"""The kinds of rows that leave a project, and the formats in which they do."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from webapp.accounts.models import Project
from webapp.data.exports import rows, trl
from webapp.data.exports.selection import Selection
from webapp.errors import NotFound

Rows = Callable[[Project, Selection], Iterator[dict[str, Any]]]
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
OWN: Final = "tutelage"


class Format(NamedTuple):
    """`title` is what a person chooses, `rows` what goes out, as JSON lines unless `suffix` says csv."""

    title: str
    rows: Rows
    suffix: str = "jsonl"


def own_formats(source: Rows) -> dict[str, Format]:
    return {
        OWN: Format("JSON lines with everything", source),
        "csv": Format("CSV for a spreadsheet", source, "csv"),
    }


EXPORTS: Final[dict[str, dict[str, Format]]] = {
    "prompts": own_formats(rows.exported_prompts) | {"prompt-only": Format("GRPOTrainer: prompts", trl.prompt_only)},
    "demonstrations": own_formats(rows.exported_demonstrations)
    | {
        "sft": Format("SFTTrainer: learn every reply", trl.sft_rows),
        "sft-last-reply": Format("SFTTrainer: learn the last reply", trl.sft_last_reply),
    },
    "rankings": own_formats(rows.exported_rankings)
    | {
        "preference": Format("DPOTrainer, RewardTrainer: pairs", trl.preference),
        "kto": Format("KTOTrainer: good and bad replies", trl.kto_of_rankings),
    },
    "judgments": own_formats(rows.exported_judgments)
    | {"kto": Format("KTOTrainer: good and bad replies", trl.kto_of_judgments)},
    "text": own_formats(rows.exported_documents),
}


def format_of(kind: str, name: str = "") -> Format:
    """Raises NotFound for a kind or a format that there is not."""
    if kind not in EXPORTS:
        raise NotFound(f"There is no export of {kind}. Choose one of {', '.join(EXPORTS)}.")
    export_format = EXPORTS[kind].get(name or OWN)
    if export_format is None:
        raise NotFound(f"{kind} have no format “{name}”. Choose one of {', '.join(EXPORTS[kind])}.")
    return export_format


def export_lines(chosen: Format, project: Project, selection: Selection) -> Iterator[str]:
    """The file, line by line."""
    rows = chosen.rows(project, selection)
    if chosen.suffix == "csv":
        yield from table(rows)
    else:
        for row in rows:
            yield json.dumps(row, ensure_ascii=False) + "\n"


def table(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A CSV table that Excel takes for UTF-8. What is no text or number is JSON in its cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for number, row in enumerate(rows):
        if number == 0:
            buffer.write("\N{ZERO WIDTH NO-BREAK SPACE}")
            writer.writerow(row)
        writer.writerow([cell(value) for value in row.values()])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def cell(value: Any) -> str | int | float:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    plain: str | int | float = value
    return plain
