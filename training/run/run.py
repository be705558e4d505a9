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

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pickle
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from training.contract import (
    CONFIG,
    DATA,
    EVENTS,
    MODEL,
    OUTPUT,
    RESULT,
    SPECS,
    Checkpoint,
    Done,
    Event,
    Failed,
    InputError,
    MetricEvent,
    ProgressEvent,
    Result,
    Row,
    SampleEvent,
    Settings,
    Warn,
    read_config,
)
from training.distributed.launch import check_stage, is_main, world_size
from training.run.durable import aside, file_sha256, folder_lock, remove, sweep, write_aside
from training.run.events import EventLog, sentence
from training.run.failures import LOST, explain
from training.run.placement import without_root
from training.run.rows import read_rows

if TYPE_CHECKING:
    from training.run.tensorboard import Board

R = TypeVar("R", bound=Row)
S = TypeVar("S", bound=Settings)

STATE: Final = "run.json"
# A change of these does not change what is learned, so a run may go on from its checkpoint with another value.
HARMLESS: Final = {"minutes", "log_every", "checkpoint_every", "keep_checkpoints", "tensorboard"}
LIBRARIES: Final = ("torch", "transformers", "tokenizers", "peft", "trl", "safetensors", "numpy")


class Stopped(Exception):
    """Raised where the run, asked to stop, has written what it needs to go on."""


class Run(Generic[S]):
    """What a stage sees of its run folder. `config` is the stage's settings; `device` is named in the result."""

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
        self._first = 0  # the first step that this process tells of
        self._board: Board | None = None

    def finished(self) -> bool:
        """Whether an earlier process brought this run to its end; sees to it that the events say so too."""
        try:
            result = Result.model_validate_json((self.folder / RESULT).read_bytes())
        except FileNotFoundError:
            return False
        if not self._events.ends_with("done"):
            self._emit(Done(time=self._clock(), metrics=result.metrics))
        return True

    # --------------------------------------------------------------------------------------------------------- input

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

    # -------------------------------------------------------------------------------------------------------- events

    def progress(self, step: int, total: int, phase: str = "") -> None:
        """Tell how far `phase` is. May be called at every step: at most two events a second are written."""
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
            now = self._clock()
            self._emit(MetricEvent(time=now, step=step, values=finite))
            if self._wants_board:
                self._open_board().add(step, finite, now)

    @property
    def _wants_board(self) -> bool:
        return bool(getattr(self.config, "tensorboard", False))

    def check_board(self) -> None:
        """Raises InputError where TensorBoard files are asked for and cannot be written."""
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

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def sample(
        self, step: int, prompt: str, reply: str, reward: float | None = None, detail: dict[str, float] | None = None
    ) -> None:
        self._emit(
            SampleEvent(time=self._clock(), step=step, prompt=prompt, reply=reply, reward=reward, detail=detail or {})
        )

    def warn(self, message: str, step: int = 0) -> None:
        self._emit(Warn(time=self._clock(), step=step, message=message))

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        if self.main and sys.stdout.isatty() and (line := sentence(event)):
            print(line, flush=True)

    # ---------------------------------------------------------------------------------------------------------- time

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

    # ------------------------------------------------------------------------------------------ stopping and resuming

    def stop_if_asked(self, step: int = 0, save: Callable[[int], None] | None = None) -> None:
        """After SIGTERM leave: with a checkpoint of `step`, where the stage can `save` one, else to begin anew."""
        if self.stopping:
            self.stop(step, save)

    def stop(self, step: int = 0, save: Callable[[int], None] | None = None) -> None:
        """Leave as `stop_if_asked` does. Raises Stopped."""
        if save is not None and self.saved != step:
            save(step)
        raise Stopped

    @contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """A folder to write the state after `step` steps into; it becomes checkpoint-<step> when the block ends."""
        name = f"checkpoint-{step}"
        with self.writing(name) as folder:
            yield folder
            state = {
                "step": step,
                "config": self._lasting_config(),
                "data": self._data_fingerprint(),
                **self.spent(),
                "files": sizes(folder),
            }
            (folder / STATE).write_text(json.dumps(state))
        self.saved = step
        self._emit(Checkpoint(time=self._clock(), step=step, folder=name))
        # Later ones than this are those that could not be read: they must not count as kept.
        readable = [path for path in self._checkpoint_folders() if step_of(path) <= step]
        for old in {*self._checkpoint_folders()} - {*readable[: getattr(self.config, "keep_checkpoints", 1)]}:
            remove(old)

    def resume(self, load: Callable[[Path], None], first_step: int = 0) -> int:
        """Load the newest checkpoint of step `first_step` or later that can be read, and return its step; if there
        is none, `first_step`.

        `load` must read its file whole before it changes anything. Raises InputError where config.json or the data
        are not those the checkpoint was made with.
        """
        if self._board is None:
            self._first = first_step
        for folder in self._checkpoint_folders():
            try:
                state = json.loads((folder / STATE).read_text())
                self._hold_against_checkpoint(folder, state)
                if step_of(folder) < first_step:
                    break
                if sizes(folder) != state["files"] | {STATE: (folder / STATE).stat().st_size}:
                    raise OSError("a file is missing or cut short")
                load(folder)
            except (OSError, ValueError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
                self.warn(f"{folder.name} cannot be read and is passed over: {error}")
                continue
            self.go_on_after(state)
            self._first = state["step"] + 1
            self.saved = int(state["step"])
            return self.saved
        return first_step

    def _checkpoint_folders(self) -> list[Path]:
        """Newest first."""
        folders = [path for path in self.folder.glob("checkpoint-*") if path.name.split("-")[1].isdecimal()]
        return sorted(folders, key=step_of, reverse=True)

    def _hold_against_checkpoint(self, folder: Path, state: dict[str, Any]) -> None:
        config, written = self._lasting_config(), state["config"]
        keys = config.keys() | written.keys()
        changed = sorted(key for key in keys if without_root(config.get(key)) != without_root(written.get(key)))
        if changed:
            changes = f"{', '.join(changed)} in {CONFIG} changed"
        elif state["data"] != self._data_fingerprint():
            changes = f"the rows in {DATA}/ changed"
        else:
            return
        raise InputError(
            f"{self.folder}: {changes} since {folder.name} was written; put it back to go on, or start a new folder",
            code="run_changed",
        )

    def _lasting_config(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", exclude=HARMLESS)

    def _data_fingerprint(self) -> str:
        if not self._fingerprint:
            digest = hashlib.sha256()
            for path in sorted((self.folder / DATA).glob("*.jsonl")):
                digest.update(f"{path.name} {file_sha256(path)}\n".encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    # -------------------------------------------------------------------------------------------------------- output

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A folder to write `name` (model, output) into: it gets its name, durably, when the block ends well."""
        with aside(self.folder, name) as folder:
            yield folder

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
        tops = (MODEL, OUTPUT) if self.main else ()
        files = sorted(p for top in tops for p in (self.folder / top).rglob("*") if p.is_file())
        result = Result(
            stage=self.stage,
            metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
            counts=counts or {},
            intervals=intervals or {},
            model=model or {},
            seconds=self.seconds | {"total": self.elapsed()},
            seed=self.config.seed,
            device=self.device,
            versions={"python": platform.python_version()} | installed(),
            files={path.relative_to(self.folder).as_posix(): file_sha256(path) for path in files},
        )
        if self.main:
            write_aside(self.folder / RESULT, result.model_dump_json(indent=1))
        self._emit(Done(time=self._clock(), metrics=result.metrics))
        return result


@contextmanager
def open_run(folder: Path, stage: str | None = None, clock: Callable[[], float] = time.time) -> Iterator[Run[Any]]:
    """Lock `folder`, read its config, and hand over the Run; SIGTERM and SIGINT set `run.stopping`.

    Whatever goes wrong inside becomes a `failed` event and a TrainingError with the sentence a person needs.
    Raises InputError without touching the folder where it is missing or another process works in it.
    """
    with folder_lock(folder) if is_main() else nullcontext():
        events = EventLog(folder / EVENTS if is_main() else Path(os.devnull))
        run: Run[Any] | None = None
        try:
            if world_size() > 1:
                importlib.import_module("training.distributed.collectives").init_processes()
            config = read_config(folder)
            if stage is not None and config.stage != stage:
                raise InputError(f"{folder / CONFIG}: this is a {config.stage} run, not {stage}", code="config_invalid")
            check_stage(config.stage)
            if is_main():
                sweep(folder)
            run = Run(folder, config, events, clock)
            run.check_board()
            with stop_signals(run), closing(run):
                yield run
            if world_size() > 1:
                importlib.import_module("training.distributed.collectives").destroy_processes()
        except Stopped:
            raise
        except Exception as error:
            failure = explain(error, folder)
            if failure.code == LOST and run is not None and run.stopping:
                raise Stopped from error  # all were asked to stop, and another left sooner
            tell_failure(folder, events, Failed(time=clock(), message=failure.message, code=failure.code))
            raise failure from error
        finally:
            events.close()


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def tell_failure(folder: Path, events: EventLog, failed: Failed) -> None:
    """Say why the run ends. An error in one process ends all, by lost connections: the first one's is the reason."""
    if world_size() > 1 and not importlib.import_module("training.distributed.collectives").is_first_to_claim("failed"):
        return
    try:
        log = events if is_main() else EventLog(folder / EVENTS)
        log.append(failed)
    except OSError as full:
        print(f"{folder / EVENTS}: {full.strerror}", file=sys.stderr)


@contextmanager
def stop_signals(run: Run[Any]) -> Iterator[None]:
    """SIGTERM and the first SIGINT ask the run to stop at its next safe point; a second SIGINT interrupts it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        run.stopping = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in the folder, by its path there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def installed() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
