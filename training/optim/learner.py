"""What takes gradient steps: optimizer, schedule, clipping, and the guard against losses that are no number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from training.contract import LoopSettings, TrainingError
from training.distributed.collectives import all_gather, all_reduce_gradients, broadcast, passes_behind
from training.distributed.fsdp import (
    Root,
    clip_grad_norm,
    full_state,
    is_sharded_tensor,
    remove_fsdp,
    reshard_like,
    shard,
    unsharded_weights,
)
from training.distributed.launch import is_sharded, rank
from training.kernels.heap import HeapTrimmer
from training.models.compute import Compute
from training.optim.meters import Means, Sums
from training.optim.optimizers import make_optimizer

B = TypeVar("B")
MAX_SKIPS_IN_A_ROW: Final = 20


class Learner:
    """Optimizer, schedule, clipping, and the guard against losses that are no number.

    modules: what learns, by name; only parameters that require gradients. rates: peak learning rate of a module, where
    it is not the settings'. AdamW with decay on matrices only.
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
        self.root = shard(modules, compute.device, compute.dtype) if is_sharded() else None
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
        self.optimizer = make_optimizer(groups, settings, compute.device)
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
        """One optimizer step on the gradient of (sum of the micro-batches' loss sums) / scale.

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
            behind = passes_behind(len(micro))
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
        if self.root is None:
            return nullcontext()
        return self._whole_and_autocast(self.root)

    @contextmanager
    def _whole_and_autocast(self, root: Root) -> Iterator[None]:
        """The layers' weights are in the dtype of the products, norms and embeddings are not."""
        with unsharded_weights(root), self.compute.autocast():
            yield

    def end(self) -> None:
        """Nothing is learned anymore: every process gets the whole modules."""
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
    if skips_in_a_row >= MAX_SKIPS_IN_A_ROW:
        raise TrainingError(
            f"the loss was no finite number for {MAX_SKIPS_IN_A_ROW} steps in a row: lower the learning rate, "
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
