"""The DPO stage: learns a policy from rankings without a reward model (Rafailov et al. 2023, arXiv:2305.18290).

TRL's DPOTrainer computes; events, checkpoints, stopping and the result are those of every other stage.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import DPOConfig, DPOTrainer

from training.chatformat import ChatFormat
from training.contract import MODEL, DPOSettings, InputError, RankingRow
from training.folder import PARTIAL
from training.loop import Learner, schedule
from training.models import CausalModel, Compute, about, context_of, load_causal, load_tokenizer, prepare, save_model
from training.preference import comparisons_of
from training.rundir import Run, Stopped

WORK: Final = "trl" + PARTIAL  # where TRL writes; what is left there by a killed process goes at the next start
TRL_REFERENCE: Final = "ref"  # the adapter that TRL adds beside the policy's
Pair = dict[str, list[int]]


class PairTrainer(DPOTrainer):
    """Takes pairs that are tokens already: ours are encoded so that nobody's text is read as special tokens."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def main(run: Run[DPOSettings]) -> None:
    config = run.config
    rows = run.rows("rankings", RankingRow, config.min_rows)
    heldout_rows = run.rows("heldout", RankingRow)
    compute = prepare(run)
    tokenizer = load_tokenizer(config.policy)
    chat = ChatFormat(tokenizer, config.policy)
    model = load_causal(config.policy, compute, lora=config.lora, trainable=True)
    most = min(config.max_tokens, context_of(model))
    pairs, heldout = pairs_of(rows, chat, most), pairs_of(heldout_rows, chat, most)
    if not pairs:
        raise InputError("dpo: no ranking puts one reply above another, so there is nothing to learn", code="no_data")
    reference = None if isinstance(model, PeftModel) else load_causal(config.policy, compute)
    arguments, total = trainer_arguments(run, pairs, compute, bool(heldout))
    optimizer = Learner({"policy": model}, config, compute).optimizer
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: schedule(min(1.0, step / total), 1 / total, config.warmup, config.schedule, config.final_lr),
    )
    teller = Teller(run, total)
    trainer = PairTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        eval_dataset=Dataset.from_list(heldout) if heldout else None,
        processing_class=tokenizer,
        callbacks=[teller],
        optimizers=(optimizer, rate),
    )
    found: list[Path] = []
    run.resume(found.append)
    with run.timed("training"):
        trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    if teller.stopped:
        shutil.rmtree(run.folder / WORK)
        raise Stopped
    if heldout:
        with run.timed("evaluation"):
            trainer.evaluate()
    shutil.rmtree(run.folder / WORK, ignore_errors=True)
    save(run, model, chat)
    run.finish(
        teller.figures | {"steps": float(trainer.state.global_step)},
        counts={
            "rankings": len(rows),
            "pairs": len(pairs),
            "heldout": len(heldout_rows),
            "heldout_pairs": len(heldout),
        },
        model=about(model),
    )


def pairs_of(rows: Sequence[RankingRow], chat: ChatFormat, most: int) -> list[Pair]:
    """Every comparison that a person decided, as tokens; ties and rankings without weight say nothing to DPO."""
    pairs = []
    for row in rows:
        if row.weight == 0:
            continue
        replies = [chat.reply(reply, row.messages) for reply in row.replies]
        prompt = chat.prompt(row.messages)
        for better, worse, _ in comparisons_of(row.groups, "drop"):
            chosen, rejected = replies[better][:most], replies[worse][:most]
            room = most - max(len(chosen), len(rejected))
            pairs.append({"prompt_ids": prompt[-room:] if room else [], "chosen_ids": chosen, "rejected_ids": rejected})
    return [pair for pair in pairs if pair["prompt_ids"]]


def trainer_arguments(
    run: Run[DPOSettings], pairs: Sequence[Pair], compute: Compute, heldout: bool
) -> tuple[DPOConfig, int]:
    """TRL's arguments, and the number of optimiser steps. A pass takes as many pairs as fit into micro_tokens at the
    longest pair's length; a step gathers passes up to batch_tokens."""
    config = run.config
    lengths = [
        2 * (len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))) for pair in pairs
    ]
    micro = max(1, min(config.micro_tokens // max(lengths), len(pairs)))
    in_step = max(1, min(round(config.batch_tokens / (sum(lengths) / len(lengths))), len(pairs)))
    micro = min(micro, in_step)
    passes = max(1, round(in_step / micro))
    total = max(1, math.ceil(len(pairs) * config.epochs / (micro * passes)))
    total = min(total, config.max_steps) if config.max_steps else total
    cpu = compute.device.type == "cpu"
    return DPOConfig(
        output_dir=str(run.folder / WORK),
        beta=config.beta,
        max_length=None,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=passes,
        max_steps=total,
        max_grad_norm=config.grad_clip,
        seed=config.seed,
        logging_steps=config.log_every,
        eval_strategy="steps" if heldout and config.evaluate_every else "no",
        eval_steps=config.evaluate_every or None,
        save_strategy="steps" if config.checkpoint_every else "no",
        save_steps=config.checkpoint_every or 500,
        use_cpu=cpu,
        bf16=compute.dtype is torch.bfloat16,
        dataloader_pin_memory=not cpu,
        gradient_checkpointing=False,
        disable_tqdm=True,
        report_to="none",
    ), total


def save(run: Run[DPOSettings], model: CausalModel, chat: ChatFormat) -> None:
    if isinstance(model, PeftModel) and TRL_REFERENCE in model.peft_config:
        model.delete_adapter(TRL_REFERENCE)
    with run.writing(MODEL) as folder:
        save_model(model, chat.tokenizer, folder, chat.stop_ids)


class Teller(TrainerCallback):
    """Turns what TRL logs and saves into events and checkpoints of the run folder, and stops TRL when asked."""

    def __init__(self, run: Run[DPOSettings], total: int) -> None:
        self.run = run
        self.total = total
        self.stopped = False
        self.figures: dict[str, float] = {}

    def on_step_end(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step, minutes = state.global_step, self.run.config.minutes
        self.run.progress(step, self.total, "learning")
        if step >= self.total:
            return
        if self.run.stopping:
            self.stopped = control.should_save = control.should_training_stop = True
        elif minutes and self.run.elapsed() > 60 * minutes:
            control.should_training_stop = True

    def on_log(
        self, _args: Any, state: TrainerState, _control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        figures = {}
        for name, value in (logs or {}).items():
            if not isinstance(value, int | float) or "runtime" in name or "per_second" in name:
                continue
            if name.startswith("train_") or name in {"epoch", "total_flos"}:
                continue
            figures[name.replace("eval_", "heldout_", 1)] = float(value)
        self.figures |= figures
        if figures:
            self.run.metric(state.global_step, figures)

    def on_save(self, args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Move what TRL has written into a checkpoint of the run folder, which is there whole or not at all."""
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.global_step >= self.total:
            shutil.rmtree(written)
            return
        with self.run.checkpoint(state.global_step) as folder:
            for path in written.iterdir():
                shutil.move(path, folder / path.name)
        written.rmdir()
