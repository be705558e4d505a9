"""Training with a TRL trainer inside a run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer

from training.optim.checkpoints import load_state
from training.rl.trl.arguments import trl_folder
from training.rl.trl.callbacks import NanGradGuard, RunEventsCallback, StepCallback
from training.run.run import Run


def run_trainer(
    run: Run[Any],
    trainer: Trainer,
    steps: int,
    *,
    updates: int = 1,
    evaluates: bool = False,
    callback: StepCallback | None = None,
) -> dict[str, float]:
    """Train for `steps` steps of `updates` optimizer steps each, from the last checkpoint if there is one, and return
    the final figures.

    With `evaluates`, TRL evaluates the trained policy on its held-out rows. Raises Stopped after SIGTERM, with a
    checkpoint written.
    """
    guard = NanGradGuard(run)
    events = RunEventsCallback(run, trainer, steps, guard, callback, updates)
    trainer.add_callback(events)
    trainer.remove_callback(PrinterCallback)
    trainer.optimizer.register_step_pre_hook(guard)
    checkpoint: Path | None = None

    def load(folder: Path) -> None:
        nonlocal checkpoint
        events.load(load_state(folder))
        checkpoint = folder

    run.resume(load)
    try:
        with run.timed("training"):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        events.log_means(events.step_of(trainer.state))
        if evaluates:
            with run.timed("evaluation"):
                trainer.evaluate()
    finally:
        if run.main:
            shutil.rmtree(trl_folder(run), ignore_errors=True)
    return events.figures | {"steps": float(events.step_of(trainer.state)), "skipped": float(guard.skipped)}
