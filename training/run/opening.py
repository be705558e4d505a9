"""Opening a run folder: its lock, its config, the signals that stop it, and what becomes of an error."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from training.contract import CONFIG, EVENTS, Failed, InputError, read_config
from training.distributed.launch import check_stage, is_main, world_size
from training.run.checkpoints import Stopped
from training.run.completing import complete_config
from training.run.durable import folder_lock, sweep
from training.run.events import EventLog
from training.run.failures import LOST, explain
from training.run.run import Run
from training.run.trackers import Outcome


@contextmanager
def open_run(
    folder: Path, stage: str | None = None, clock: Callable[[], float] = time.time, *, recipe: str = ""
) -> Iterator[Run[Any]]:
    """Lock `folder`, read its config, and hand over the Run; SIGTERM and SIGINT set `run.stopping`. Settings that the
    config leaves out are those of the recipe, or the learning rate that suits the model.

    Whatever goes wrong inside becomes a `failed` event and a TrainingError with the sentence a person needs.
    Raises InputError without touching the folder where it is missing or another process works in it.
    """
    with folder_lock(folder) if is_main() else nullcontext():
        events = EventLog(folder / EVENTS if is_main() else Path(os.devnull))
        run: Run[Any] | None = None
        try:
            if world_size() > 1:
                importlib.import_module("training.distributed.collectives").init_processes()
            config, remarks = complete_config(read_config(folder), recipe)
            if stage is not None and config.stage != stage:
                raise InputError(f"{folder / CONFIG}: this is a {config.stage} run, not {stage}", code="config_invalid")
            check_stage(config.stage)
            if is_main():
                sweep(folder)
            run = Run(folder, config, events, clock)
            for remark in remarks:
                run.warn(remark)
            run.check_reporting()
            with stop_signals(run), closing_with_outcome(run):
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
def closing_with_outcome(run: Run[Any]) -> Iterator[None]:
    outcome: Outcome = "stopped"
    try:
        yield
    except Exception as error:
        outcome = "stopped" if isinstance(error, Stopped) else "failed"
        raise
    finally:
        run.close(outcome)


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
