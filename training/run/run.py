"""A run folder, opened by the one process that works in it: lock, config, rows, events, checkpoints, result.

    with open_run(Path("runs/7"), "sft") as run:
        rows = run.rows("demonstrations", DemonstrationRow)
        ...
        with run.writing("model") as folder:
            save(folder)
        run.finish({"loss": 1.2}, model={"kind": "full"})

Where several processes compute one run, the main one owns the folder. The others read config, rows and checkpoints, and
what they tell goes nowhere, except the error that ends the run. Folders are written aside and renamed, so a folder that
bears its final name is whole. Nothing here imports torch.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from typing import Any, Final, TypeVar

from training.contract import DATA, MODEL, OUTPUT, RESULT, SPECS, Done, InputError, Result, Row, Settings
from training.run.checkpoints import ResumableRun
from training.run.durable import file_sha256, write_aside
from training.run.rows import read_rows

R = TypeVar("R", bound=Row)
S = TypeVar("S", bound=Settings)
LIBRARIES: Final = ("torch", "transformers", "tokenizers", "peft", "trl", "safetensors", "numpy")


class Run(ResumableRun[S]):
    """What a stage sees of its run folder: its rows, and where its result goes. See the bases for what it reports and
    how it stops."""

    def rows(self, name: str, kind: type[R], at_least: int = 0) -> list[R]:
        """The rows of data/<name>.jsonl, [] where the file is optional and absent.

        NUL characters, which no database and few tools take, are left out of the text with one warning.
        Raises InputError with file:line and field.
        """
        path = self.folder / DATA / f"{name}.jsonl"
        required = SPECS[self.stage].data[name].required
        if not path.exists():
            if required or at_least:
                raise InputError(f"{path}: this file is missing; {self.stage} cannot start without it", code="no_data")
            return []
        rows, nul_lines = read_rows(path, kind)
        if nul_lines:
            self.warn(
                f"{path.name}: removed NUL characters from {len(nul_lines)} rows, the first on line {nul_lines[0]}"
            )
        minimum = max(at_least, int(required))
        if len(rows) < minimum:
            have = f"{len(rows)} {name}" if rows else f"no {name}"
            raise InputError(
                f"{self.stage}: {have} in the snapshot, at least {minimum} are needed", code="too_few_rows"
            )
        return rows

    def finish(
        self,
        metrics: dict[str, float],
        *,
        counts: dict[str, int] | None = None,
        intervals: dict[str, tuple[float, float, int]] | None = None,
        model: dict[str, Any] | None = None,
    ) -> Result:
        """Write result.json and the `done` event. Call it last, after model/ or output/ is written. Processes
        other than the main one write nothing, and list no files."""
        not_logged = self.end_tracking("finished")
        tops = (MODEL, OUTPUT) if self.main else ()
        files = sorted(p for top in tops for p in (self.folder / top).rglob("*") if p.is_file())
        result = Result(
            stage=self.stage,
            metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
            counts=(counts or {}) | not_logged,
            intervals=intervals or {},
            model=model or {},
            seconds=self.seconds | {"total": self.elapsed()},
            seed=getattr(self.config, "seed", None),
            device=self.device,
            versions={"python": platform.python_version()} | installed(),
            files={path.relative_to(self.folder).as_posix(): file_sha256(path) for path in files},
        )
        if self.main:
            write_aside(self.folder / RESULT, result.model_dump_json(indent=1))
        self._emit(Done(time=self._clock(), metrics=result.metrics))
        return result

    def finished(self) -> bool:
        """Whether an earlier process brought this run to its end; sees to it that the events say so too."""
        try:
            result = Result.model_validate_json((self.folder / RESULT).read_bytes())
        except FileNotFoundError:
            return False
        if not self._events.ends_with("done"):
            self._emit(Done(time=self._clock(), metrics=result.metrics))
        return True


def installed() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
