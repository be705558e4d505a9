"""What the stages that TRL computes share: its arguments made from our settings; its logs, saves and stops told as the
events, checkpoints and result of every other stage."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.contract import MODEL, InputError, LoopSettings
from training.data.chat_format import ChatFormat
from training.data.fitting import RowCounts
from training.distributed.collectives import most, wait
from training.distributed.launch import world
from training.models.checks import check_vocabulary
from training.models.compute import Compute, prepare
from training.models.loading import CausalModel, about, context_of, load_causal, load_tokenizer, save_model
from training.optim.loop import Learner, Means, load_state, raise_if_diverged, save_state, schedule
from training.run.durable import PARTIAL
from training.run.run import Run

WORK: Final = "trl" + PARTIAL  # where TRL writes; what is left there by a killed process goes at the next start
# Of the run as a whole, or, the number of tokens, forgotten by TRL where it goes on from a checkpoint
NOT_TOLD: Final = {"epoch", "total_flos", "num_tokens", "eval_num_tokens"}
TRL_REFERENCE: Final = "ref"  # the adapter that TRL adds beside the policy's


Example = dict[str, Any]


class EncodedExamples(NamedTuple):
    """What a stage learns from, as token ids."""

    examples: list[Example]
    changes: RowCounts  # of what was left out and what was shortened
    total: int  # examples before that
    counts: dict[str, int]  # examples of each kind; none may be 0


def learn_from_examples(
    run: Run[Any],
    encode: Callable[[ChatFormat, int], tuple[EncodedExamples, EncodedExamples]],
    trainer_of: Callable[..., Trainer],
    arguments_of: Callable[..., TrainingArguments],
    *,
    counts: dict[str, int],
    least: int = 1,
    **settings: float,
) -> None:
    """The whole of a stage that learns a policy from labels: encode(chat, limit in tokens) makes the examples to learn
    from and the held-out ones, `counts` says how many rows there are, at least `least` examples go into a pass, and
    `settings` are TRL's own."""
    config = run.config
    compute = prepare(run)
    chat = ChatFormat(load_tokenizer(config.policy, run), config.policy)
    model = load_causal(config.policy, compute, lora=config.lora, trainable=True, copies=1)
    check_vocabulary(chat, model, config.policy)
    learned, heldout = encode(chat, min(config.max_tokens, context_of(model)))
    report_changes(run, learned)
    steps = steps_of([length_of(one) for one in learned.examples], config)
    steps = steps._replace(micro=max(least, steps.micro))
    trainer = trainer_of(
        model=model,
        ref_model=None if isinstance(model, PeftModel) else load_causal(config.policy, compute),
        args=arguments_of(
            **arguments(run, compute, steps, heldout=bool(heldout.examples)), **settings, max_length=None
        ),
        train_dataset=Dataset.from_list(learned.examples),
        eval_dataset=Dataset.from_list(heldout.examples) if heldout.examples else None,
        processing_class=chat.tokenizer,
        optimizers=optimizers(model, config, compute, steps.total),
    )
    figures = train(run, trainer, steps.total, heldout=bool(heldout.examples))
    save(run, model, chat)
    run.finish(
        figures,
        counts=counts
        | learned.counts
        | learned.changes.named()
        | {f"heldout_{name}": n for name, n in heldout.counts.items()}
        | heldout.changes.named(prefix="heldout/"),
        model=about(model),
    )


def report_changes(run: Run[Any], learned: EncodedExamples) -> None:
    """Warn of examples that are left out or shortened. Raises InputError if a kind of example is missing."""
    sentences = learned.changes.sentences(learned.total)
    if all(learned.counts.values()):
        for sentence in sentences:
            run.warn(sentence)
        return
    if learned.changes.left_out or any(learned.counts.values()):
        missing = " and ".join(f"no {kind}" for kind, count in learned.counts.items() if not count)
        raise InputError("; ".join([f"{run.stage}: {missing} to learn from", *sentences]), code="no_data")
    raise InputError(
        f"{run.stage}: no ranking puts one reply above another, so there is nothing to learn", code="no_data"
    )


def length_of(example: Example) -> int:
    """Tokens of the two sequences of an example, the prompt with one reply and another, padded to the longer one."""
    replies = [len(ids) for name, ids in example.items() if name.endswith("_ids") and name != "prompt_ids"]
    return 2 * (len(example["prompt_ids"]) + max(replies))


class Steps(NamedTuple):
    micro: int  # rows in one pass
    passes: int  # of one optimiser step, in each process
    total: int  # optimiser steps


def steps_of(lengths: Sequence[int], config: Any) -> Steps:
    """Rows of these lengths in tokens: a pass takes as many as fit into micro_tokens at the longest one's length, and a
    step gathers passes up to batch_tokens."""
    micro = max(1, min(config.micro_tokens // max(lengths), len(lengths)))
    in_step = max(1, min(round(config.batch_tokens / (sum(lengths) / len(lengths))), len(lengths)))
    micro = min(micro, math.ceil(in_step / world()))
    passes = max(1, round(in_step / (micro * world())))
    total = max(1, math.ceil(len(lengths) * config.epochs / (micro * passes * world())))
    return Steps(micro, passes, min(total, config.max_steps) if config.max_steps else total)


def arguments(run: Run[Any], compute: Compute, steps: Steps, *, heldout: bool) -> dict[str, Any]:
    """What every TRL trainer is told."""
    config: LoopSettings = run.config
    cpu = compute.device.type == "cpu"
    return {
        "output_dir": str(run.folder / WORK),
        "per_device_train_batch_size": steps.micro,
        "per_device_eval_batch_size": steps.micro,
        "gradient_accumulation_steps": steps.passes,
        "max_steps": steps.total,
        "max_grad_norm": config.grad_clip,
        "seed": config.seed,
        "logging_steps": 1,  # Teller takes the means over log_every steps, which survive a stop
        "eval_strategy": "steps" if heldout and config.evaluate_every else "no",
        "eval_steps": config.evaluate_every or None,
        "save_strategy": "steps" if config.checkpoint_every else "no",
        "save_steps": config.checkpoint_every or 500,
        "use_cpu": cpu,
        "bf16": compute.dtype is torch.bfloat16,
        "dataloader_pin_memory": not cpu,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "report_to": "none",
    }


def optimizers(
    model: CausalModel, config: LoopSettings, compute: Compute, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Ours, with our schedule."""
    optimizer = Learner({"policy": model}, config, compute).optimizer
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: schedule(min(1.0, step / total), 1 / total, config.warmup, config.schedule, config.final_lr),
    )
    return optimizer, rate


class Guard:
    """Before each optimiser step: gradients that are no finite numbers are dropped, so that the step changes nothing,
    and counted; many in a row end the run. As in training/optim/loop.py."""

    def __init__(self, run: Run[Any]) -> None:
        self.run, self.skipped, self._in_a_row = run, 0, 0

    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if all(bool(p.grad.isfinite().all()) for p in parameters):
            self._in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self.skipped += 1
        self._in_a_row += 1
        self.run.warn("the gradient was no finite number, the step is skipped")
        raise_if_diverged(self._in_a_row)

    def state(self) -> list[int]:
        return [self.skipped, self._in_a_row]

    def load(self, state: list[int]) -> None:
        self.skipped, self._in_a_row = state


class Beside(Protocol):
    """What a stage does after each of TRL's steps, and what of it a resumed run needs."""

    def after(self, step: int, figures: Mapping[str, float]) -> str:
        """Why training should stop now, or nothing; `figures` are TRL's last ones."""

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


def train(
    run: Run[Any], trainer: Trainer, total: int, *, heldout: bool, beside: Beside | None = None
) -> dict[str, float]:
    """To the end, from the last checkpoint where there is one; the final figures. Raises Stopped after SIGTERM, with a
    checkpoint written."""
    guard = Guard(run)
    teller = Teller(run, trainer, total, guard, beside)
    trainer.add_callback(teller)
    trainer.remove_callback(PrinterCallback)
    trainer.optimizer.register_step_pre_hook(guard)
    found: list[Path] = []

    def load(folder: Path) -> None:
        teller.load(load_state(folder))
        found.append(folder)

    run.resume(load)
    try:
        with run.timed("training"):
            trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
        teller.tell_means(trainer.state.global_step)
        if heldout:
            with run.timed("evaluation"):
                trainer.evaluate()
    finally:
        if run.main:
            shutil.rmtree(run.folder / WORK, ignore_errors=True)
    return teller.figures | {"steps": float(trainer.state.global_step), "skipped": float(guard.skipped)}


def save(run: Run[Any], model: CausalModel, chat: ChatFormat) -> None:
    if isinstance(model, PeftModel) and TRL_REFERENCE in model.peft_config:
        model.delete_adapter(TRL_REFERENCE)
    if run.main:
        with run.writing(MODEL) as folder:
            save_model(model, chat.tokenizer, folder, chat.stop_ids)


class Teller(TrainerCallback):
    """Turns what TRL logs and saves into events and checkpoints of the run folder, and stops TRL when asked."""

    def __init__(self, run: Run[Any], trainer: Trainer, total: int, guard: Guard, beside: Beside | None = None) -> None:
        self.run = run
        self.trainer = trainer
        self.guard = guard
        self.total = total
        self.beside = beside
        self.means = Means()
        self.figures: dict[str, float] = {}
        self._epoch_began = -1

    def state(self) -> dict[str, Any]:
        return {
            "means": asdict(self.means),
            "figures": self.figures,
            "guard": self.guard.state(),
            "beside": self.beside.state() if self.beside else {},
        }

    def load(self, state: dict[str, Any]) -> None:
        self.means, self.figures = Means(**state["means"]), state["figures"]
        self.guard.load(state["guard"])
        if self.beside:
            self.beside.load(state["beside"])

    def on_epoch_begin(self, _args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Before the epoch draws its order. The step that comes next need not be asked: a checkpoint there would
        hold random numbers of after the draw."""
        self._stop_if_asked(state.global_step)
        self._epoch_began = state.global_step

    def on_step_begin(self, _args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step != self._epoch_began:
            self._stop_if_asked(state.global_step)

    def _stop_if_asked(self, step: int) -> None:
        """Before a step, so that a signal while the last one was told, evaluated or saved costs none. Raises
        Stopped."""
        if most(self.run.stopping)[0]:
            self.run.stop(step, self._save if step else None)

    def _save(self, _: int) -> None:
        trainer = self.trainer
        trainer._save_checkpoint(trainer.model, trial=None)
        trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)

    def on_step_end(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step, minutes = state.global_step, self.run.config.minutes
        self.run.progress(step, self.total, "learning")
        verdict = self.beside.after(step, self.figures) if self.beside else ""
        if step >= self.total:
            return
        if verdict:
            self.run.warn(f"stopped at step {step}: {verdict}", step)
        late = most(bool(minutes) and self.run.elapsed() > 60 * minutes)[0]
        if verdict or late:
            control.should_training_stop = True

    def on_log(
        self, _args: Any, state: TrainerState, _control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Held-out figures are told as they come, the others as means since they were last told."""
        figures = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float) and "runtime" not in name and "per_second" not in name
            if not name.startswith("train_") and name not in NOT_TOLD
        }
        if heldout := {f"heldout_{name[5:]}": value for name, value in figures.items() if name.startswith("eval_")}:
            self._tell(state.global_step, heldout)
        elif figures:
            self.means.add({name: (value, 1) for name, value in figures.items()})
            if state.global_step % self.run.config.log_every == 0:
                self.tell_means(state.global_step)

    def tell_means(self, step: int) -> None:
        if self.means.sums:
            self._tell(step, self.means.values())
            self.means = Means()

    def _tell(self, step: int, figures: dict[str, float]) -> None:
        self.figures |= figures
        self.run.metric(step, figures)

    def on_save(self, args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Move what TRL has written into a checkpoint of the run folder, which is there whole or not at all."""
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        wait()  # every process has written its random number generators
        if self.run.main:
            if state.global_step < self.total:
                with self.run.checkpoint(state.global_step) as folder:
                    for path in written.iterdir():
                        shutil.move(path, folder / path.name)
                    save_state(folder, self.state())
            shutil.rmtree(written)
        wait()
        self.run.saved = state.global_step
