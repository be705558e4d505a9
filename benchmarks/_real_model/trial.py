"""What every part is given: one round with one seed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks._application import Json, Work


@dataclass(frozen=True)
class Trial:
    """One part with one seed, in a project of its own."""

    work: Work
    model: int  # the model as it came
    data: Path
    scratch: Path
    seed: int
    share: float  # of rows and steps

    def part_of(self, number: int, least: int) -> int:
        """The trial's share of a number of rows or steps."""
        return max(least, int(number * self.share))

    def file(self, name: str, rows: Iterable[Json]) -> Path:
        path = self.scratch / f"{name}-{self.seed}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
