"""Starts the processes of a run whose setting `processes` asks for several, by `accelerate launch`, and is their one
face: it passes on the wish to stop, and ends with the status that they ended with.

accelerate's own launcher kills what has not ended 30 seconds after a SIGTERM, and ends with status 1 whatever its
processes say. So it never hears of the signal: the processes get it themselves, and write down their statuses.
No torch here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import psutil

from training.contract import EXIT_DONE, EXIT_STOPPED, InputError, LoopSettings, read_config
from training.distributed.launch import is_launched
from training.run.completing import complete_config

STATUSES: Final = "TUTELAGE_STATUSES"  # the file into which the processes write what they ended with
CONFIGURATIONS: Final = Path(__file__).parents[1] / "accelerate"
PR_SET_PDEATHSIG: Final = 1
LOOK: Final = 1.0  # seconds after which a wish to stop is passed on to processes that have started since


def processes_wanted(folder: Path, recipe: str) -> tuple[int, bool]:
    """How many processes the run asks for, and whether its model is sharded among them. One where it was launched
    already, or where its config cannot be read, which the run itself says."""
    if is_launched():
        return 1, False
    try:
        config, _ = complete_config(read_config(folder), recipe)
    except InputError:
        return 1, False
    return (config.processes, getattr(config, "shard", False)) if isinstance(config, LoopSettings) else (1, False)


def run_together(arguments: list[str], processes: int, *, shard: bool) -> int:
    """Run `python -m training` with these arguments in several processes. The exit status is that of one process."""
    configuration = CONFIGURATIONS / ("fsdp.yaml" if shard else "parallel.yaml")
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration),
        "--num_processes", str(processes), "-m", "training", *arguments,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        statuses = Path(scratch) / "statuses"
        statuses.touch()
        launcher = subprocess.Popen(
            command,
            env=os.environ | {STATUSES: str(statuses)},
            start_new_session=True,  # a signal to our group is ours to pass on
            preexec_fn=die_with_parent,  # noqa: PLW1509 (there are no threads yet)
        )
        with stop_passed_on(launcher) as signals:
            while launcher.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    launcher.wait(LOOK)
                if signals and launcher.poll() is None:
                    ask_to_stop(launcher)
        return status_of(
            [int(line) for line in statuses.read_text().split()], launcher.returncode, stopped=bool(signals)
        )


@contextmanager
def stop_passed_on(launcher: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """SIGTERM and SIGINT go to the processes; the signals that came are in the list."""
    signals: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        ask_to_stop(launcher)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ask_to_stop(launcher: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the launcher's own processes. One that has heard it already does not mind; one that does not listen
    yet ends at once, with nothing to save."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(launcher.pid).children():
            with suppress(psutil.NoSuchProcess):
                process.terminate()


def status_of(statuses: list[int], launcher: int, *, stopped: bool) -> int:
    """What one process would have ended with. `launcher`: accelerate's own status, for processes that were killed."""
    if failures := [status for status in statuses if status not in (EXIT_DONE, EXIT_STOPPED)]:
        return max(failures)  # 2, of a config or data that do not fit, before 1, of what follows in the others
    if EXIT_STOPPED in statuses or (stopped and launcher):
        return EXIT_STOPPED
    return EXIT_DONE if not launcher and statuses else abs(launcher) or 1


def report_status(status: int) -> int:
    """Write down what this process ends with, for the one that waits for it. Returns what to tell accelerate, to which
    a stop is no failure."""
    if path := os.environ.get(STATUSES):
        with Path(path).open("a") as file:
            file.write(f"{status}\n")
        return EXIT_DONE if status == EXIT_STOPPED else status
    return status


def die_with_parent() -> None:
    """On Linux, end when the process that started this one ends, even by SIGKILL."""
    if sys.platform == "linux":
        library: Any = ctypes.CDLL(None, use_errno=True)
        library.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
