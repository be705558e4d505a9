"""A file as the loader reads it, without a database."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webapp.data.loading import ImportReport, collect
from webapp.data.packing import Budget
from webapp.errors import BadInput


@dataclass
class Reading:
    items: list[Any]
    report: ImportReport
    error: str = ""


def read_file(path: Path, *, kind: Any = None, limit: int | None = None) -> Reading:
    """Everything in the file, bad rows left out; `error` is the sentence of a file that cannot be read on."""
    report = ImportReport()
    found = collect(path, kind=kind, report=report, skip_bad=True, budget=Budget(limit), on_position=None)
    taken: list[Any] = []
    try:
        for _, item in found:
            taken.append(item)
    except BadInput as error:
        return Reading(taken, report, error.message)
    return Reading(taken, report)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path
