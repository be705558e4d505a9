"""Callbacks that make a run of TRL's behave like any other run: events, checkpoints, stopping, and a guard against
NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from training.distributed.collectives import all_reduce_max
from training.optim.learner import raise_if_diverged
from training.optim.meters import Means
from training.rl.trl.saving import adopt_checkpoint
from training.run.run import Run

# About the run as a whole, or, like the number of tokens, forgotten by TRL when it resumes from a checkpoint.
NOT_LOGGED: Final = {"epoch", "total_flos", "num_tokens", "eval_num_tokens"}
NOT_COMPUTED: Final = ("mean_token_accuracy", "logits/chosen", "logits/rejected")  # by packed passes


class StepCallback(Protocol):
    """What a stage does after each of TRL's steps, and the state that a resumed run needs of it."""

    def after_step(self, step: int, figures: Mapping[str, float]) -> str:
        """Why training should stop now, or an empty string; `figures` are TRL's latest."""

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


class NanGradGuard:
    """Before each optimizer step, drops gradients that are not finite, so that the step changes nothing. It counts such
    steps, and many in a row end the run. The Learner does the same for the stages that use it."""

    def __init__(self, run: Run[Any]) -> None:
        self.run, self.skipped, self._skips_in_a_row = run, 0, 0

    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if all(bool(p.grad.isfinite().all()) for p in parameters):
            self._skips_in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self.skipped += 1
        self._skips_in_a_row += 1
        self.run.warn("the gradient was no finite number, the step is skipped")
        raise_if_diverged(self._skips_in_a_row)

    def state(self) -> list[int]:
        return [self.skipped, self._skips_in_a_row]

    def load(self, state: list[int]) -> None:
        self.skipped, self._skips_in_a_row = state


class RunEventsCallback(TrainerCallback):
    """Turns what TRL logs and saves into events and checkpoints of the run folder, and stops TRL when asked.

    A step of the run is `updates` of TRL's, which learn from one rollout; only between steps is it stopped and saved,
    since TRL does not save a rollout.
    """

    def __init__(
        self,
        run: Run[Any],
        trainer: Trainer,
        steps: int,
        guard: NanGradGuard,
        callback: StepCallback | None = None,
        updates: int = 1,
    ) -> None:
        self.run = run
        self.trainer = trainer
        self.steps = steps
        self.guard = guard
        self.callback = callback
        self.updates = updates
        self.means = Means()
        self.figures: dict[str, float] = {}
        self._epoch_began_at = -1

    def step_of(self, state: TrainerState) -> int:
        """The run's steps that are complete."""
        return int(state.global_step) // self.updates

    def state(self) -> dict[str, Any]:
        return {
            "means": asdict(self.means),
            "figures": self.figures,
            "guard": self.guard.state(),
            "beside": self.callback.state() if self.callback else {},
        }

    def load(self, state: dict[str, Any]) -> None:
        self.means, self.figures = Means(**state["means"]), state["figures"]
        self.guard.load(state["guard"])
        if self.callback:
            self.callback.load(state["beside"])

    def on_epoch_begin(self, _args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Stop before the epoch shuffles its rows. Its first step must not stop once more: a checkpoint there would
        hold the random state after the shuffle."""
        self._stop_if_asked(state)
        self._epoch_began_at = state.global_step

    def on_step_begin(self, _args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step != self._epoch_began_at:
            self._stop_if_asked(state)

    def _stop_if_asked(self, state: TrainerState) -> None:
        """Checked before a step, so that a signal during the last one's logging, evaluation or saving loses nothing.
        Raises Stopped."""
        if state.global_step % self.updates == 0 and all_reduce_max(self.run.stopping)[0]:
            step = self.step_of(state)
            self.run.stop(step, self._save if step else None)

    def _save(self, _: int) -> None:
        trainer = self.trainer
        trainer._save_checkpoint(trainer.model, trial=None)
        trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)

    def on_step_end(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.updates:
            return
        step, minutes = self.step_of(state), self.run.config.minutes
        self.run.progress(step, self.steps, "learning")
        stop_reason = self.callback.after_step(step, self.figures) if self.callback else ""
        if step >= self.steps:
            return
        if stop_reason:
            self.run.warn(f"stopped at step {step}: {stop_reason}", step)
        out_of_time = all_reduce_max(bool(minutes) and self.run.elapsed() > 60 * minutes)[0]
        if stop_reason or out_of_time:
            control.should_training_stop = True

    def on_log(
        self, _args: Any, state: TrainerState, _control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Log held-out figures at once, and the others as means over the steps since they were last logged."""
        figures = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float) and "runtime" not in name and "per_second" not in name
            if not name.startswith("train_") and name not in NOT_LOGGED and not name.endswith(NOT_COMPUTED)
        }
        if heldout := {f"heldout_{name[5:]}": value for name, value in figures.items() if name.startswith("eval_")}:
            self._log(self.step_of(state), heldout)
        elif figures:
            self.means.add({name: (value, 1) for name, value in figures.items()})
            step, remainder = divmod(state.global_step, self.updates)
            if remainder == 0 and step % self.run.config.log_every == 0:
                self.log_means(step)

    def log_means(self, step: int) -> None:
        if self.means.sums:
            self._log(step, self.means.values())
            self.means = Means()

    def _log(self, step: int, figures: dict[str, float]) -> None:
        self.figures |= figures
        self.run.metric(step, figures)

    def on_save(self, args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        step = self.step_of(state)
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        adopt_checkpoint(self.run, written, step, self.state(), is_last=step >= self.steps)
