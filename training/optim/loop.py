"""The small training loop of pretrain, sft and reward, whose learner PPO's update shares.

    learner = Learner({"model": model}, settings, compute)
    figures = train(run, learner, Examples(sizes, batch), loss, epochs=3, evaluate=evaluate)

`loss(batch)` returns sums with their counts, {"loss": (sum, count), "accuracy": (right, pairs)}; the gradient of a step
is that of its loss sum over the weights of all rows of the step, so it does not depend on the cut into micro-batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from training.data.batching import Examples, epoch_batches, micro_batches, steps_per_epoch
from training.distributed.collectives import all_reduce_max, local_shard
from training.distributed.launch import world_size
from training.optim.checkpoints import load_state, save_checkpoint
from training.optim.learner import Learner
from training.optim.meters import Means, Meter, Sums
from training.run.checkpoints import Stopped
from training.run.run import Run

B = TypeVar("B")
Evaluate = Callable[[int, bool], dict[str, float]]  # held-out figures after a step, which may be the last one


def train(
    run: Run[Any],
    learner: Learner,
    examples: Examples[B],
    loss: Callable[[B], Sums],
    *,
    epochs: float,
    max_steps: int = 0,
    turn: int = 0,
    turns: int = 1,
    evaluate: Evaluate = lambda _step, _final: {},
) -> dict[str, float]:
    """Train to the end, from the last checkpoint if there is one; returns the final figures.

    A run that trains several models one after the other says which `turn` of how many `turns` this is: the steps count
    on from turn to turn, each sees the rows in an order of its own, and `minutes` is shared.

    evaluate(step, final) returns held-out figures; it is called every `evaluate_every` steps and at the end.
    The mode (train or eval) of the modules is the caller's and is left alone. Raises Stopped after SIGTERM, also where
    `evaluate` does, with a checkpoint written.
    """
    settings = learner.settings
    batch_tokens: int = run.config.batch_tokens
    sizes = examples.sizes
    per_epoch = steps_per_epoch(sizes, batch_tokens)
    total = max(1, math.ceil(per_epoch * epochs))
    total = min(total, max_steps) if max_steps else total
    batches = lru_cache(1)(lambda epoch: epoch_batches(sizes, batch_tokens, run.config.seed + turn, epoch))
    first_step = turn * total
    state = TrainingState(run, learner, first_step, evaluate)
    meter = state.meter

    def show_progress() -> None:
        expected = expected_steps(run, step, total, turn, turns)
        run.progress(first_step + step, first_step + expected + (turns - turn - 1) * total, "training")

    step = run.resume(state.load, first_step) - first_step
    if state.unmeasured:
        state.measure(step)
    while (now := agreed_state(run, step, total, turn, turns)).done < 1:
        if now.stop:
            state.stop(step)
        rows = batches(step // per_epoch)[step % per_epoch]
        started_at = time.perf_counter()
        micro = (
            examples.batch(batch)
            for batch in local_shard(micro_batches(rows, sizes, settings.micro_tokens, world_size()))
        )
        figures_of_step = learner.update(
            micro, loss, float(sizes.weights[rows].sum()), now.done, 1 / total,
            spare=partial(examples.batch, rows[:1]),
        )  # fmt: skip
        if "skipped" in figures_of_step:
            run.warn(
                f"step {first_step + step}: the gradient was no finite number, the step is skipped", first_step + step
            )
        meter.means.add(figures_of_step)
        meter.tokens += int(sizes.tokens[rows].sum())
        meter.seconds += time.perf_counter() - started_at
        step += 1
        show_progress()
        if step % settings.log_every == 0:
            state.report(step, meter.report())
        if step == total:
            break
        if is_due(step, settings.evaluate_every):
            state.measure(step)
        if is_due(step, settings.checkpoint_every):
            state.save(step)
    if meter.means.sums:
        state.report(step, meter.report())
    learner.end()
    state.measure(step, final=True)
    show_progress()  # the measurement has shown its own
    overall = {"tokens_per_second": meter.tokens / meter.seconds} if meter.seconds else {}
    return state.figures | overall | {"steps": float(step), "skipped": float(learner.skipped)}


class TrainingState:
    """What has been learned and measured so far, and how it is kept. Steps count from `first_step` of the run on."""

    def __init__(self, run: Run[Any], learner: Learner, first_step: int, evaluate: Evaluate) -> None:
        self.run, self.learner, self.first_step, self.evaluate = run, learner, first_step, evaluate
        self.meter = Meter()
        self.figures: dict[str, float] = {}
        self.unmeasured = False  # whether the run was stopped while it measured what this step had reached

    def save(self, step: int) -> None:
        so_far = {"meter": asdict(self.meter.means), "figures": self.figures, "unmeasured": self.unmeasured}
        save_checkpoint(self.run, self.first_step + step, self.learner.state() | so_far)

    def load(self, folder: Path) -> None:
        state = load_state(folder)
        self.learner.load(state)
        self.meter.means = Means(**state["meter"])
        self.figures.update(state["figures"])
        self.unmeasured = state.get("unmeasured", False)  # checkpoints of earlier versions do not say

    def stop(self, step: int) -> None:
        """Raises Stopped, with a checkpoint written."""
        self.run.stop(self.first_step + step, lambda reached: self.save(reached - self.first_step))

    def report(self, step: int, values: dict[str, float]) -> None:
        self.figures.update(values)
        self.run.metric(self.first_step + step, values)

    def measure(self, step: int, final: bool = False) -> None:
        try:
            with self.run.timed("evaluation"), self.learner.whole():
                values = self.evaluate(step, final)
        except Stopped:
            self.unmeasured = not final
            self.stop(step)
        self.unmeasured = False
        self.report(step, values)


class Now(NamedTuple):
    """What all processes see alike before a step."""

    done: float  # share of the training that is behind, in [0, 1]
    stop: bool  # whether any of them was asked to stop


def agreed_state(run: Run[Any], step: int, total: int, turn: int = 0, turns: int = 1) -> Now:
    done, stop = all_reduce_max(share_done(run, step, total, turn, turns), run.stopping)
    return Now(done, bool(stop))


def is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def expected_steps(run: Run[Any], step: int, total: int, turn: int = 0, turns: int = 1) -> int:
    """How many steps the run will have taken at its end, as far as is known after `step` of them."""
    return max(step, min(total, round(step / share_done(run, step, total, turn, turns))))


def share_done(run: Run[Any], step: int, total: int, turn: int = 0, turns: int = 1) -> float:
    """How much of the training is done, in [0, 1]: by steps or, where `minutes` is set, by time if that is further."""
    minutes: float = run.config.minutes
    by_time = run.elapsed() / (60 * minutes) * turns - turn if minutes and step else 0.0
    return min(1.0, max(step / total, by_time))
