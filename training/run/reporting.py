"""What a run reports: progress, metrics, samples and warnings, as lines of events.jsonl, and the time it took."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from training.contract import Event, InputError, MetricEvent, ProgressEvent, SampleEvent, Settings, Tracked, Warn
from training.distributed.launch import is_main
from training.run.durable import aside
from training.run.events import EventLog, sentence
from training.run.trackers import Outcome
from training.run.tracking import Tracking, check_trackers

if TYPE_CHECKING:
    from training.run.tensorboard import Board

S = TypeVar("S", bound=Settings)
ProgressCallback = Callable[[int, int], None]  # is called with what is done and what there is to do in all


def ignore_progress(done: int, total: int) -> None:
    """For callers that need not know how far something is."""


class ReportingRun(Generic[S]):
    """A run folder with its settings, into which one process writes."""

    def __init__(self, folder: Path, config: S, events: EventLog, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.config = config
        self.stage = config.stage
        self.device = "cpu"
        self.main = is_main()
        self.stopping = False
        self.saved = -1  # step of the newest checkpoint
        self.seconds: dict[str, float] = {}
        self._events = events
        self._clock = clock
        self._opened = clock()
        self._before = 0.0  # seconds that earlier processes worked on this run
        self._phase = ("", 0, 0.0, 0.0)  # name, first step, when it began, when it was last told
        self._fingerprint = ""
        self._first = 0  # the first step that this process reports
        self._board: Board | None = None
        self._tracking: Tracking | None = None

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A folder to write `name` (model, output) into: it gets its name, durably, when the block ends well."""
        with aside(self.folder, name) as folder:
            yield folder

    def progress(self, step: int, total: int, phase: str = "") -> None:
        """Tell how far `phase` is. May be called at every step: at most two events a second are written."""
        self._report_tracking()
        now = self._clock()
        name, first_step, started_at, reported_at = self._phase
        if phase != name or step < first_step:
            first_step, started_at, reported_at = step, now, 0.0
        if now - reported_at < 0.5 and step != total:
            return
        self._phase = (phase, first_step, started_at, now)
        eta = (now - started_at) / (step - first_step) * (total - step) if step > first_step and total >= step else None
        self._emit(ProgressEvent(time=now, step=step, total=total, phase=phase, eta=eta))

    def metric(self, step: int, values: dict[str, float]) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if len(finite) < len(values):
            self.warn(f"step {step}: {', '.join(sorted(values.keys() - finite.keys()))} is not a finite number", step)
        if finite:
            self._begin_tracking()
            now = self._clock()
            self._emit(MetricEvent(time=now, step=step, values=finite))
            if self._wants_board:
                self._open_board().add(step, finite, now)
            if self._tracking is not None:
                self._tracking.add(step, finite, now)
                self._report_tracking()

    @property
    def _wants_board(self) -> bool:
        return self.main and bool(getattr(self.config, "tensorboard", False))

    @property
    def _tracker_names(self) -> list[str]:
        return list(getattr(self.config, "report_to", []))

    def _begin_tracking(self) -> None:
        """Before the first figure that this process tells: in the trackers there is no run without one."""
        if self._tracking is None and self._tracker_names and self.main:
            project: str = getattr(self.config, "report_project", "")
            self._tracking = Tracking(self.folder, self._tracker_names, project, self.config.model_dump(mode="json"))

    def _report_tracking(self) -> None:
        """Tell where trackers show the run, and which have failed."""
        if self._tracking is not None:
            for name, place in self._tracking.places():
                self._emit(Tracked(time=self._clock(), tracker=name, url=place.url, note=place.note))
            for message in self._tracking.warnings():
                self.warn(message)

    def end_tracking(self, outcome: Outcome) -> dict[str, int]:
        """Let the trackers take what is left; how many metric events each has not taken, by name of the count."""
        if self._tracking is None:
            return {}
        tracking = self._tracking
        tracking.end(outcome)
        self._report_tracking()
        self._tracking = None
        return {f"not_logged/{name}": count for name, count in tracking.lost().items()}

    def check_reporting(self) -> None:
        """Raises InputError if TensorBoard files or experiment trackers are asked for and not installed."""
        check_trackers(self._tracker_names)
        if self._wants_board and importlib.util.find_spec("tensorboard") is None:
            raise InputError(
                "tensorboard: the package tensorboard is not installed; install it, or leave the setting off",
                code="config_invalid",
            )

    def _open_board(self) -> Board:
        if self._board is None:
            from training.run.tensorboard import Board  # noqa: PLC0415 - it imports torch

            self._board = Board(self.folder, self._first)
        return self._board

    def close(self, outcome: Outcome = "stopped") -> None:
        self.end_tracking(outcome)
        if self._board is not None:
            self._board.close()

    def sample(
        self,
        step: int,
        prompt: str,
        reply: str,
        reward: float | None = None,
        detail: dict[str, float] | None = None,
        reference: Any = None,
    ) -> None:
        """`reference`: the right answer, where the prompt has one."""
        text = "" if reference is None else reference if isinstance(reference, str) else json.dumps(reference)
        event = SampleEvent(time=self._clock(), step=step, prompt=prompt, reply=reply, reward=reward, reference=text)
        self._emit(event.model_copy(update={"detail": detail or {}}))

    def warn(self, message: str, step: int = 0) -> None:
        self._emit(Warn(time=self._clock(), step=step, message=message))

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        if self.main and sys.stdout.isatty() and (line := sentence(event)):
            print(line, flush=True)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the wall time of the block to `seconds[phase]` of the result."""
        started_at = self._clock()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self._clock() - started_at

    def elapsed(self) -> float:
        """Seconds of work on this run, those before a resume included."""
        return self._before + self._clock() - self._opened

    def spent(self) -> dict[str, Any]:
        """The time of work on this run, for whoever goes on with it."""
        return {"seconds": self.seconds, "elapsed": self.elapsed()}

    def go_on_after(self, spent: dict[str, Any]) -> None:
        """Count what an earlier process has `spent`, too."""
        self.seconds, self._before = dict(spent["seconds"]), spent["elapsed"]
