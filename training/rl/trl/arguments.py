"""TRL's training arguments and optimizer, made from our settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from training.contract import LoopSettings
from training.distributed.launch import world_size
from training.models.compute import Compute
from training.models.loading import CausalModel
from training.optim.learner import Learner, schedule
from training.run.durable import PARTIAL
from training.run.run import Run

TRL_FOLDER: Final = "trl" + PARTIAL  # where TRL writes; if a process is killed, the next start removes it


class BatchPlan(NamedTuple):
    micro: int  # rows per forward pass
    accumulation: int  # passes per optimizer step, in each process
    steps: int  # optimizer steps
    updates: int = 1  # optimizer steps in each step of the run


def plan_batches(lengths: Sequence[int], config: Any, min_micro: int = 1) -> BatchPlan:
    """For rows of these lengths in tokens. A pass takes as many rows as fit into micro_tokens if all are as long as the
    longest one, and at least `min_micro`; a step gathers passes up to batch_tokens."""
    micro = max(1, min(config.micro_tokens // max(lengths), len(lengths)))
    rows_per_step = max(1, min(round(config.batch_tokens / (sum(lengths) / len(lengths))), len(lengths)))
    micro = min(micro, math.ceil(rows_per_step / world_size()))
    accumulation = max(1, round(rows_per_step / (micro * world_size())))
    steps = max(1, math.ceil(len(lengths) * config.epochs / (micro * accumulation * world_size())))
    steps = min(steps, config.max_steps) if config.max_steps else steps
    return BatchPlan(max(min_micro, micro), accumulation, steps)


def trl_arguments(run: Run[Any], compute: Compute, plan: BatchPlan, *, evaluates: bool) -> dict[str, Any]:
    """The arguments that every TRL trainer takes; `evaluates`: there are held-out rows for TRL to evaluate on."""
    config: LoopSettings = run.config
    cpu = compute.device.type == "cpu"
    return {
        "output_dir": str(trl_folder(run)),
        "per_device_train_batch_size": plan.micro,
        "per_device_eval_batch_size": plan.micro,
        "gradient_accumulation_steps": plan.accumulation,
        "max_steps": plan.steps,
        "max_grad_norm": config.grad_clip,
        "seed": config.seed,
        "logging_steps": 1,  # RunEventsCallback averages over log_every steps, also across a stop
        "eval_strategy": "steps" if evaluates and config.evaluate_every else "no",
        "eval_steps": config.evaluate_every or None,
        "save_strategy": "steps" if config.checkpoint_every else "no",
        "save_steps": (config.checkpoint_every or 500) * plan.updates,
        "use_cpu": cpu,
        "bf16": compute.dtype is torch.bfloat16,
        "dataloader_pin_memory": not cpu,
        "activation_checkpointing": False,
        "disable_tqdm": True,
        "report_to": "none",
    }


def trl_folder(run: Run[Any]) -> Path:
    return run.folder / TRL_FOLDER


def trl_optimizer(
    model: CausalModel, config: LoopSettings, compute: Compute, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Our own optimizer and learning-rate schedule, in place of TRL's."""
    optimizer = Learner({"policy": model}, config, compute).optimizer
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: schedule(min(1.0, step / steps), 1 / steps, config.warmup, config.schedule, config.final_lr),
    )
    return optimizer, scheduler
