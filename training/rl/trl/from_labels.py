"""The stages that train a policy directly on people's labels: everything but their examples and their loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from datasets import Dataset
from peft import PeftModel
from transformers import Trainer, TrainingArguments

from training.contract import InputError
from training.data.chat_format import ChatFormat
from training.data.fitting import RowCounts
from training.models.adapters import POLICY, check_copied
from training.models.checks import check_vocabulary
from training.models.compute import prepare
from training.models.loading import context_of, load_causal, load_tokenizer, model_info
from training.models.token_rows import copy_rows
from training.models.trunk import tell_padding
from training.rl.trl.arguments import plan_batches, trl_arguments, trl_optimizer
from training.rl.trl.packed_passes import pack_passes
from training.rl.trl.running import run_trainer
from training.rl.trl.saving import TRL_REFERENCE, save_policy
from training.run.run import Run

LabelT = TypeVar("LabelT")
TokenExample = dict[str, Any]  # columns of TRL's dataset by name; those with token ids end in _ids


class TokenExamples(NamedTuple):
    """What a stage trains on, as token ids."""

    examples: list[TokenExample]
    changes: RowCounts  # what was left out or shortened
    total: int  # examples before any were left out
    counts: dict[str, int]  # examples of each kind; none may be 0


def train_on_labels(
    run: Run[Any],
    labels: Sequence[LabelT],
    heldout_labels: Sequence[LabelT],
    encode: Callable[[Sequence[LabelT], ChatFormat, int], TokenExamples],
    trainer_class: type[Trainer],
    arguments_class: type[TrainingArguments],
    *,
    counts: dict[str, int],
    min_micro: int = 1,
    reference: bool = True,
    **trl_settings: Any,
) -> None:
    """The whole of a stage that trains a policy on labels. `encode` turns labels into examples of at most so many
    tokens; `counts` are the rows by kind, for the result; at least `min_micro` examples go into a forward pass;
    `reference`: the loss compares with a frozen copy of the policy; `trl_settings` are arguments of TRL's own."""
    config = run.config
    compute = prepare(run)
    chat = ChatFormat(load_tokenizer(config.policy, run), config.policy)
    model = load_causal(
        config.policy,
        compute,
        lora=config.lora,
        trainable=True,
        checkpointing=config.activation_checkpointing,
    )
    check_vocabulary(chat, model, config.policy)
    if isinstance(model, PeftModel):
        check_copied(model)
    limit = min(config.max_tokens, context_of(model))
    training, heldout = encode(labels, chat, limit), encode(heldout_labels, chat, limit)
    check_and_warn(run, training)
    plan = plan_batches([padded_tokens(example) for example in training.examples], config, min_micro)
    evaluates = bool(heldout.examples)
    own: dict[str, Any] = {}
    if reference:  # with an adapter it is the model under it
        own["ref_model"] = None if isinstance(model, PeftModel) else load_causal(config.policy, compute)
    max_length = None if reference else limit  # none: nothing is cut, for ours are fitted already
    trainer = trainer_class(
        model=model,
        **own,
        args=arguments_class(
            **trl_arguments(run, compute, plan, evaluates=evaluates), **trl_settings, max_length=max_length
        ),
        train_dataset=Dataset.from_list(training.examples),
        eval_dataset=Dataset.from_list(heldout.examples) if evaluates else None,
        processing_class=chat.tokenizer,
        optimizers=trl_optimizer(model, config, compute, plan.steps),
    )
    if reference:
        copy_rows(model, POLICY, TRL_REFERENCE)
        tell_padding(run, *pack_passes(trainer, compute))
    figures = run_trainer(run, trainer, plan.steps, evaluates=evaluates)
    save_policy(run, model, chat)
    run.finish(
        figures,
        counts=counts
        | training.counts
        | training.changes.named()
        | {f"heldout_{name}": n for name, n in heldout.counts.items()}
        | heldout.changes.named(prefix="heldout/"),
        model=model_info(model),
    )


def check_and_warn(run: Run[Any], training: TokenExamples) -> None:
    """Warn about examples that are left out or shortened. Raises InputError if a kind of example is missing."""
    sentences = training.changes.sentences(training.total)
    if all(training.counts.values()):
        for sentence in sentences:
            run.warn(sentence)
        return
    if training.changes.left_out or any(training.counts.values()):
        missing = " and ".join(f"no {kind}" for kind, count in training.counts.items() if not count)
        raise InputError("; ".join([f"{run.stage}: {missing} to learn from", *sentences]), code="no_data")
    raise InputError(
        f"{run.stage}: no ranking puts one reply above another, so there is nothing to learn", code="no_data"
    )


def padded_tokens(example: TokenExample) -> int:
    """Tokens of an example's two sequences, its prompt with one reply and with another, padded to the longer one."""
    replies = [len(ids) for name, ids in example.items() if name.endswith("_ids") and name != "prompt_ids"]
    return 2 * (len(example["prompt_ids"]) + max(replies))
