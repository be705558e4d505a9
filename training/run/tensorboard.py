"""The metric events of a run as TensorBoard event files, beside events.jsonl, which they never replace.

tensorboard --logdir RUN_DIR/tensorboard
"""

from __future__ import annotations

import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


class Board:
    """Scalars under the metrics' names. `first` is the first step that is going to be written: what an earlier process
    has written of it and of later ones, TensorBoard leaves out."""

    def __init__(self, run_dir: Path, first_step: int) -> None:
        wait_for_a_later_name(run_dir / FOLDER)
        self._writer = SummaryWriter(str(run_dir / FOLDER), purge_step=first_step)

    def add(self, step: int, values: dict[str, float], at: float) -> None:
        """`at`: seconds since the epoch."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, walltime=at)
        self._writer.flush()  # what is told is on disk before the checkpoint from which a resumed run continues

    def close(self) -> None:
        self._writer.close()


def wait_for_a_later_name(folder: Path) -> None:
    """TensorBoard reads files in the order of their names, which begin with the second they were made in: a process
    that follows another within a second must not come before it."""
    seconds_used = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    if 0 < (wait := max(seconds_used, default=0) + 1 - time.time()) <= 1:
        time.sleep(wait)
