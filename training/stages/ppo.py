"""The PPO stage: improves a policy against a reward, held to where it began by a KL penalty (Ouyang et al. 2022,
arXiv:2203.02155; Ziegler et al. 2019, arXiv:1909.08593). Each step samples replies, scores them, and learns from
them: training/rl/trainer.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from training.contract import MODEL, InputError, PPOSettings, PromptRow, TextRow
from training.data.chat_format import ChatFormat
from training.data.fitting import RowCounts
from training.engine import Engine
from training.models.checks import check_vocabulary
from training.models.compute import prepare
from training.models.loading import CausalModel, about, context_of, load_tokenizer, save_model
from training.optim.loop import Learner, agreed, load_state, save_checkpoint
from training.rl.policies import check_sampling, drop_reference, load_policies
from training.rl.ptx import PretrainingMix
from training.rl.rollouts import (
    ALWAYS_COUNTED,
    Prompt,
    Scorer,
    encode_prompts,
    load_scorer,
    prompt_room,
    warn_of_changes,
)
from training.rl.trainer import Trainer
from training.rl.update import Updater
from training.run.run import Run

MOST_SLOTS: Final = 128


def main(run: Run[PPOSettings]) -> None:
    config = run.config
    if complaint := check_sampling(config):
        run.warn(complaint)
    rows = run.rows("prompts", PromptRow, config.min_rows)
    heldout_rows, corpus = run.rows("heldout", PromptRow), run.rows("corpus", TextRow)
    compute = prepare(run)
    tokenizer = load_tokenizer(config.policy, run)
    chat = ChatFormat(tokenizer, config.policy)
    scorer, reward_model = load_scorer(config.reward, compute, config.pessimism)
    policies = load_policies(config, compute, reward_model)
    model = policies.actor.model
    check_vocabulary(chat, model, config.policy)
    slots = min(config.prompts_per_step * config.samples_per_prompt, MOST_SLOTS)
    engine = Engine(model, tokenizer, slots=slots, stop_ids=chat.stop_ids, dtype=compute.dtype)
    room = prompt_room(engine.context, config.max_prompt_tokens, config.sampling.max_new_tokens)
    prompts, changes = usable_prompts(run, rows, chat, room, scorer)
    heldout, heldout_changes = encode_prompts(heldout_rows, chat, room, config.long_prompts, scorer)
    learner = Learner(
        {"policy": model, "value": policies.actor.value_head}, config, compute,
        rates={"value": config.value_learning_rate},
    )  # fmt: skip
    trainer = Trainer(
        run=run,
        prompts=prompts,
        heldout=heldout,
        engine=engine,
        scorer=scorer,
        updater=Updater(config, policies, learner, compute, chat.pad_id),
        mix=PretrainingMix(config, chat, corpus, context_of(model), compute) if corpus and config.ptx_weight else None,
    )

    def load(folder: Path) -> None:
        trainer.load(load_state(folder))

    def save(step: int) -> None:
        save_checkpoint(run, step, trainer.state())

    step = run.resume(load)
    if step == 0:
        trainer.held.evaluate(step)
    while (now := agreed(run, step, config.steps)).done < 1 and not trainer.stopped:
        if now.stop:
            run.stop(step, save)
        trainer.step(step, now.done)
        step += 1
        run.progress(step, config.steps, "learning")
        if config.evaluate_every and step % config.evaluate_every == 0:
            trainer.held.evaluate(step)
        if config.checkpoint_every and step % config.checkpoint_every == 0:
            save(step)
    trainer.held.evaluate(step)
    finish(run, trainer, model, chat, step, {
        "prompts": len(prompts), **changes.named(*ALWAYS_COUNTED),
        "heldout": len(heldout), **heldout_changes.named(*ALWAYS_COUNTED, prefix="heldout/"),
    })  # fmt: skip


def usable_prompts(
    run: Run[PPOSettings], rows: Sequence[PromptRow], chat: ChatFormat, room: int, scorer: Scorer
) -> tuple[list[Prompt], RowCounts]:
    """The prompts that leave room for a reply, and what happened to the others. Raises InputError if too few do."""
    prompts, changes = encode_prompts(rows, chat, room, run.config.long_prompts, scorer)
    if len(prompts) < run.config.min_rows:
        raise InputError(
            f"ppo: {len(prompts)} of {len(rows)} prompts can be used, at least {run.config.min_rows} are needed; "
            f"{'; '.join(changes.sentences(len(rows)))}. Raise max_prompt_tokens, lower max_new_tokens, or set "
            "long_prompts to shorten",
            code="too_few_rows",
        )
    warn_of_changes(run, changes, len(rows))
    return prompts, changes


def finish(
    run: Run[PPOSettings],
    trainer: Trainer,
    model: CausalModel,
    chat: ChatFormat,
    step: int,
    counts: dict[str, int],
) -> None:
    """Save the policy that did best on held-out prompts, or the last one where there are none."""
    trainer.updater.learner.end()
    kept = trainer.held.keep_best(step)
    drop_reference(model)
    if run.main:
        trainer.held.write_frontier()
        with run.writing(MODEL) as folder:
            save_model(model, chat.tokenizer, folder, chat.stop_ids)
    run.finish(
        trainer.figures | trainer.held.figures | {"steps": step, "saved_step": kept},
        intervals=trainer.held.intervals,
        counts=counts | {"episodes": trainer.episodes},
        model=about(model),
    )
