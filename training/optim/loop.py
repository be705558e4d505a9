"""The small training loop of pretrain, sft and reward, and the optimiser part that PPO's update shares with them.

    learner = Learner({"model": model}, settings, compute)
    figures = train(run, learner, Examples(sizes, batch), loss, epochs=3, evaluate=evaluate)

`loss(batch)` returns sums with their counts, {"loss": (sum, count), "accuracy": (right, pairs)}; the gradient of a step
is that of its loss sum over the weights of all rows of the step, so it does not depend on the cut into micro-batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from training.contract import LoopSettings, TrainingError
from training.data.batching import Examples, epoch_batches, micro_batches, steps_per_epoch
from training.distributed.collectives import (
    all_gather,
    all_reduce_gradients,
    all_reduce_max,
    barrier,
    broadcast,
    local_shard,
)
from training.distributed.fsdp import (
    clip_grad_norm,
    full_state,
    is_sharded_tensor,
    remove_fsdp,
    reshard_like,
    shard,
    unsharded_weights,
)
from training.distributed.launch import is_sharded, rank, world_size
from training.kernels.heap import HeapTrimmer
from training.models.compute import Compute
from training.run.run import Run

B = TypeVar("B")
Sums = Mapping[str, tuple[Tensor | float, float]]
STATE: Final = "state.pt"
MOST_SKIPS_IN_A_ROW: Final = 20


@dataclass
class Means:
    """Running sums and counts of named figures."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, figures: Sums) -> None:
        for name, (total, count) in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(total)
            self.counts[name] = self.counts.get(name, 0.0) + count

    def of_all(self) -> Means:
        """Those of all processes together."""
        combined = Means()
        for means in all_gather(self):
            combined.add({name: (total, means.counts[name]) for name, total in means.sums.items()})
        return combined

    def values(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items() if self.counts[name]}


class Learner:
    """Optimiser, schedule, clipping, and the guard against losses that are no number.

    modules: what learns, by name; only parameters that require gradients. rates: peak learning rate of a module, where
    it is not the settings'. AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), decay on matrices only.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        settings: LoopSettings,
        compute: Compute,
        rates: dict[str, float] | None = None,
    ) -> None:
        self.modules = modules
        self.settings = settings
        self.compute = compute
        self.skipped = 0
        self._skips_in_a_row = 0
        broadcast([p for module in modules.values() for p in module.parameters() if p.requires_grad])
        self.root = shard(modules, compute.device) if is_sharded() else None
        self.parameters: list[nn.Parameter] = []
        groups = []
        for name, module in modules.items():
            peak = (rates or {}).get(name) or settings.learning_rate
            new = [p for p in module.parameters() if p.requires_grad and not any(p is q for q in self.parameters)]
            self.parameters += new
            for decay, chosen in (
                (settings.weight_decay, [p for p in new if p.ndim >= 2]),
                (0.0, [p for p in new if p.ndim < 2]),
            ):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "lr": peak, "peak": peak})
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, settings.beta2), fused=True)
        self.heap = HeapTrimmer()

    def update(
        self,
        micro: Iterable[B],
        loss: Callable[[B], Sums],
        scale: float,
        done: float,
        step_share: float = 0.0,
        spare: Callable[[], B] | None = None,
    ) -> dict[str, tuple[float, float]]:
        """One optimiser step on the gradient of (sum of the micro-batches' loss sums) / scale.

        Each process comes with micro-batches of its own, or none, and the same scale, that of all of them; gradients
        and figures are added up over the processes. done: share of the schedule before this step, and step_share: that
        of the step itself, both in [0, 1]. spare: makes a micro-batch that a process whose model lies in parts computes
        without learning from it, where the others have more of them.
        Returns the sums and counts of `loss` and, each with count 1, grad_norm and learning_rate. A gradient that is
        not finite changes nothing: `skipped` counts it and the figures say skipped. Raises TrainingError after many.
        """
        factor = schedule(done, step_share, self.settings.warmup, self.settings.schedule, self.settings.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        figures = Means()
        behind = 0
        if self.root is not None:
            micro = list(micro)
            behind = int(all_reduce_max(len(micro))[0]) - len(micro)
        for batch in micro:
            figures.add(self._learn_from(batch, loss, scale))
        if spare is not None:
            for _ in range(behind):
                self._learn_from(spare(), loss, math.inf)
        all_reduce_gradients([p for p in self.parameters if not is_sharded_tensor(p)])
        figures = figures.of_all()
        norm = self._clip()
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
        self._count_skip(finite)
        self.optimizer.zero_grad(set_to_none=True)
        if not finite:
            return {"skipped": (1.0, 1.0)}
        figures.add({"grad_norm": (norm, 1), "learning_rate": (self.optimizer.param_groups[0]["lr"], 1)})
        return {name: (figures.sums[name], figures.counts[name]) for name in figures.sums}

    def _learn_from(self, batch: B, loss: Callable[[B], Sums], scale: float) -> Sums:
        """Add to the gradients those of the batch's loss sum over the scale."""
        with self.compute.autocast():
            sums = loss(batch) if self.root is None else self.root(lambda: loss(batch))
        torch.autograd.backward(torch.as_tensor(sums["loss"][0]) / scale)
        self.heap.maybe_trim()
        return {name: (float(torch.as_tensor(value).detach()), count) for name, (value, count) in sums.items()}

    def _clip(self) -> float:
        """The gradients' norm, to which they are then bounded."""
        clip = self.settings.grad_clip or math.inf
        if self.root is None:
            return float(nn.utils.clip_grad_norm_(self.parameters, clip))
        return clip_grad_norm(self.parameters, clip)

    def whole(self) -> AbstractContextManager[None]:
        """For whatever needs the modules' weights outside of `update`."""
        return nullcontext() if self.root is None else unsharded_weights(self.root)

    def end(self) -> None:
        """Nothing is learned any more: every process gets the whole modules."""
        if self.root is not None:
            remove_fsdp(self.root)
            self.root = None

    def _count_skip(self, finite: bool) -> None:
        self._skips_in_a_row = 0 if finite else self._skips_in_a_row + 1
        self.skipped += not finite
        raise_if_diverged(self._skips_in_a_row)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs of the learner, random number generators of all processes included."""
        weights = {
            key: {name: p for name, p in module.named_parameters() if p.requires_grad}
            for key, module in self.modules.items()
        }
        return {
            "weights": full_state(weights),
            "optimizer": full_state(self.optimizer.state_dict()),
            "skipped": self.skipped,
            "skips_in_a_row": self._skips_in_a_row,
            "rng": all_gather(torch.get_rng_state()),
            "cuda_rng": all_gather(torch.cuda.get_rng_state()) if self.compute.device.type == "cuda" else [],
        }

    def load(self, state: dict[str, Any]) -> None:
        for key, module in self.modules.items():
            parameters_by_name = {name: p for name, p in module.named_parameters() if p.requires_grad}
            if parameters_by_name.keys() != state["weights"][key].keys():
                raise ValueError(f"the weights of {key} in the checkpoint are not those of the model")
            with torch.no_grad():
                for name, parameter in parameters_by_name.items():
                    parameter.copy_(reshard_like(state["weights"][key][name], parameter))
        order = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = {
            i: {
                name: reshard_like(value, order[i]) if isinstance(value, Tensor) else value
                for name, value in moment_values.items()
            }
            for i, moment_values in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict(state["optimizer"] | {"state": moments})
        self.skipped, self._skips_in_a_row = state["skipped"], state["skips_in_a_row"]
        torch.set_rng_state(state["rng"][min(rank(), len(state["rng"]) - 1)])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state(state["cuda_rng"][min(rank(), len(state["cuda_rng"]) - 1)])


def raise_if_diverged(skips_in_a_row: int) -> None:
    if skips_in_a_row >= MOST_SKIPS_IN_A_ROW:
        raise TrainingError(
            f"the loss was no finite number for {MOST_SKIPS_IN_A_ROW} steps in a row: lower the learning rate, "
            "or set precision to fp32",
            code="diverged",
        )


def schedule(done: float, step_share: float, warmup: float, kind: str, final: float) -> float:
    """Factor on the peak learning rate for a step that begins when `done` of the training is behind it.

    Rises in a line over the share `warmup`, then falls to `final` as a cosine or a line, or stays (constant).
    """
    if done < warmup:
        return min(1.0, (done + step_share) / warmup)
    if kind == "constant" or warmup >= 1:
        return 1.0
    remaining = 1.0 - min(1.0, (done - warmup) / (1.0 - warmup))
    shape = remaining if kind == "linear" else (1.0 - math.cos(math.pi * remaining)) / 2
    return final + (1.0 - final) * shape


def save_state(folder: Path, state: dict[str, Any]) -> None:
    with (folder / STATE).open("wb") as file:  # torch's own writer does not say why a write failed
        torch.save(state, file)


def save_checkpoint(run: Run[Any], step: int, state: dict[str, Any]) -> None:
    """The main process writes, the others wait until it has."""
    if run.main:
        with run.checkpoint(step) as folder:
            save_state(folder, state)
    barrier()
    run.saved = step


def load_state(folder: Path) -> dict[str, Any]:
    """Tensors, numbers, strings and containers of them only: nothing else is unpickled."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


class Meter:
    """Figures since they were last told, and how many tokens a second were learned from."""

    def __init__(self) -> None:
        self.means = Means()
        self.tokens = self.tokens_before = 0
        self.seconds = self.seconds_before = 0.0

    def told(self) -> dict[str, float]:
        """The figures since the last call."""
        rate = (self.tokens - self.tokens_before) / max(1e-9, self.seconds - self.seconds_before)
        values = self.means.values() | {"tokens_per_second": rate}
        self.means, self.tokens_before, self.seconds_before = Means(), self.tokens, self.seconds
        return values


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
    evaluate: Callable[[int, bool], dict[str, float]] = lambda _step, _final: {},
) -> dict[str, float]:
    """Train to the end, from the last checkpoint where there is one; returns the final figures.

    A run that trains several models one after the other says which `turn` of how many `turns` this is: the steps count
    on from turn to turn, each sees the rows in an order of its own, and `minutes` is shared.

    evaluate(step, final) returns held-out figures; it is called every `evaluate_every` steps and at the end.
    The mode (train or eval) of the modules is the caller's and is left alone. Raises Stopped after SIGTERM, with a
    checkpoint written.
    """
    settings = learner.settings
    sizes = examples.sizes
    per_epoch = steps_per_epoch(sizes, settings.batch_tokens)
    total = max(1, math.ceil(per_epoch * epochs))
    total = min(total, max_steps) if max_steps else total
    batches = lru_cache(1)(lambda epoch: epoch_batches(sizes, settings.batch_tokens, run.config.seed + turn, epoch))
    first_step = turn * total
    meter = Meter()
    figures: dict[str, float] = {}

    def save(step: int) -> None:
        save_checkpoint(run, first_step + step, learner.state() | {"meter": asdict(meter.means), "figures": figures})

    def load(folder: Path) -> None:
        state = load_state(folder)
        learner.load(state)
        meter.means = Means(**state["meter"])
        figures.update(state["figures"])

    def tell(step: int, values: dict[str, float]) -> None:
        figures.update(values)
        run.metric(first_step + step, values)

    step = run.resume(load, first_step) - first_step
    while (now := agreed_state(run, step, total, turn, turns)).done < 1:
        if now.stop:
            run.stop(first_step + step, lambda reached: save(reached - first_step))
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
        expected = expected_steps(run, step, total, turn, turns)
        run.progress(first_step + step, first_step + expected + (turns - turn - 1) * total, "training")
        if step % settings.log_every == 0:
            tell(step, meter.told())
        if step == total:
            break
        if is_due(step, settings.evaluate_every):
            with run.timed("evaluation"), learner.whole():
                tell(step, evaluate(step, False))
        if is_due(step, settings.checkpoint_every):
            save(step)
    if meter.means.sums:
        tell(step, meter.told())
    learner.end()
    with run.timed("evaluation"):
        tell(step, evaluate(step, True))
    overall = {"tokens_per_second": meter.tokens / meter.seconds} if meter.seconds else {}
    return figures | overall | {"steps": float(step), "skipped": float(learner.skipped)}


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
    """How many steps the run will have taken at its end, as far as can be told after `step` of them."""
    return max(step, min(total, round(step / share_done(run, step, total, turn, turns))))


def share_done(run: Run[Any], step: int, total: int, turn: int = 0, turns: int = 1) -> float:
    """How much of the training is done, in [0, 1]: by steps or, where `minutes` is set, by time if that is further."""
    minutes: float = run.config.minutes
    by_time = run.elapsed() / (60 * minutes) * turns - turn if minutes and step else 0.0
    return min(1.0, max(step / total, by_time))


@torch.no_grad()
def mean_figures(
    examples: Examples[B], loss: Callable[[B], Sums], compute: Compute, micro_tokens: int, most_tokens: int = 0
) -> dict[str, float]:
    """The figures of `loss` over all rows, or over a fixed random part of at most `most_tokens` tokens."""
    rows = np.random.default_rng(0).permutation(len(examples.sizes))
    if most_tokens:
        rows = rows[: max(1, int((np.cumsum(examples.sizes.tokens[rows]) <= most_tokens).sum()))]
    means = Means()
    for batch in local_shard(micro_batches(rows, examples.sizes, micro_tokens, world_size())):
        with compute.autocast():
            means.add(loss(examples.batch(batch)))
    return means.of_all().values()
