"""The GRPO stage: improves a policy by comparing replies to one prompt with each other (Shao et al. 2024,
arXiv:2402.03300).

TRL's GRPOTrainer computes the update; our engine gives the replies and our scorer their rewards, as in PPO. Events,
checkpoints, stopping and the result are those of every other stage.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from peft import PeftModel
from trl import GRPOConfig, GRPOTrainer

from training.contract import GRPOSettings, InputError, PromptRow
from training.data.chat_format import ChatFormat
from training.distributed.launch import rank, world
from training.engine import Completion, Engine
from training.models.checks import check_vocabulary
from training.models.compute import Compute, adapter_base, prepare
from training.models.forward import Forward
from training.models.loading import CausalModel, about, load_causal, load_tokenizer
from training.optim.loop import due
from training.preferences.reward_functions import find_shaping, shaping_of
from training.rl.early_stop import DivergenceMonitor
from training.rl.heldout import HeldoutEvaluator, ReplyKL
from training.rl.policies import switched
from training.rl.rollouts import (
    ALWAYS_COUNTED,
    Prompt,
    Sampled,
    Scorer,
    encode_prompts,
    load_scorer,
    prompt_room,
    prompts_of_step,
    sample_replies,
    score_replies,
    warn_of_changes,
)
from training.run.run import Run
from training.stages.trl import TRL_REFERENCE, Steps, arguments, optimizers, save, train

SLOTS = 128


def main(run: Run[GRPOSettings]) -> None:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # its hook for rollouts may change; the version is pinned
    config = run.config
    rows, heldout_rows = run.rows("prompts", PromptRow, config.min_rows), run.rows("heldout", PromptRow)
    if config.sampling.temperature == 0:
        raise InputError(
            "sampling.temperature: 0 gives the same reply every time, so there is nothing to compare; take 1",
            code="config_invalid",
        )
    replies = config.prompts_per_step * config.samples_per_prompt
    if replies % world():
        raise InputError(
            f"prompts_per_step: a step's {replies} replies cannot be shared evenly by {world()} processes; take a "
            "multiple",
            code="config_invalid",
        )
    compute = prepare(run)
    tokenizer = load_tokenizer(config.policy, run)
    chat = ChatFormat(tokenizer, config.policy)
    scorer, _ = load_scorer(config.reward, compute, config.pessimism)
    model = load_causal(config.policy, compute, lora=config.lora, trainable=True, copies=int(config.beta > 0))
    check_vocabulary(chat, model, config.policy)
    engine = Engine(model, tokenizer, slots=min(replies, SLOTS), stop_ids=chat.stop_ids, dtype=compute.dtype)
    room = prompt_room(engine.context, config.max_prompt_tokens, config.sampling.max_new_tokens)
    prompts, changes = encode_prompts(rows, chat, room, config.long_prompts, scorer)
    heldout, heldout_changes = encode_prompts(heldout_rows, chat, room, config.long_prompts, scorer)
    if len(prompts) < config.min_rows:
        raise InputError(
            f"grpo: {len(prompts)} of {len(rows)} prompts can be used, at least {config.min_rows} are needed; "
            f"{'; '.join(changes.sentences(len(rows)))}. Raise max_prompt_tokens or set long_prompts to shorten",
            code="too_few_rows",
        )
    warn_of_changes(run, changes, len(rows))
    longest = max(len(prompt.ids) for prompt in prompts) + config.sampling.max_new_tokens
    micro = largest_divisor(replies // world(), config.micro_tokens // longest)
    steps = Steps(micro, replies // world() // micro, config.steps)
    rollouts = Rollouts(engine, scorer, prompts, config)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[scores_of],
        args=GRPOConfig(
            **arguments(run, compute, steps, heldout=False),
            num_generations=config.samples_per_prompt,
            max_completion_length=config.sampling.max_new_tokens,
            temperature=config.sampling.temperature,
            beta=config.beta,
            epsilon=config.clip,
            scale_rewards="group" if config.scale_rewards else "none",
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt.row.id} for prompt in prompts]),
        processing_class=tokenizer,
        optimizers=optimizers(model, config, compute, steps.total),
        rollout_func=rollouts,
    )
    if trainer.ref_model is not None:  # TRL takes the base where the policy is an adapter merged into it
        trainer.ref_model.load_state_dict(model.state_dict())
    model.eval()
    held = HeldoutEvaluator(run, heldout, engine, scorer, model, kl_of(trainer, model, config, compute, chat.pad_id))
    held.evaluate(0)
    figures = train(run, trainer, steps.total, heldout=False, beside=Lookout(config, rollouts, held))
    last = int(figures["steps"])
    held.evaluate(last)
    kept = held.keep_best(last)
    if run.main:
        held.write_frontier()
    save(run, model, chat)
    run.finish(
        figures | held.figures | {"saved_step": kept},
        intervals=held.intervals,
        counts={
            "prompts": len(prompts), **changes.named(*ALWAYS_COUNTED),
            "heldout": len(heldout), **heldout_changes.named(*ALWAYS_COUNTED, prefix="heldout/"),
        },
        model=about(model),
    )  # fmt: skip


class Rollouts:
    """Gives TRL replies, with the log-probabilities and scores that it computes with; of several processes each gets
    its share, in the order in which TRL puts the shares together. Which prompts a step takes we say ourselves, as in
    PPO, so that a resumed run sees what it would have seen; TRL's own choice is passed over."""

    def __init__(self, engine: Engine, scorer: Scorer, prompts: list[Prompt], config: GRPOSettings) -> None:
        self.engine, self.scorer, self.prompts, self.config = engine, scorer, prompts, config
        self.shaping = find_shaping(config.shaping)
        self.figures: dict[str, float] = {}  # of the last replies

    def __call__(self, _: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        config, step = self.config, trainer.state.global_step
        chosen = prompts_of_step(len(self.prompts), step, config.prompts_per_step, config.seed)
        asked = [self.prompts[i] for i in chosen for _ in range(config.samples_per_prompt)]
        completions = sample_replies(self.engine, asked, config.sampling, (config.seed, "grpo", step))
        self.figures = reply_figures(completions)
        sampled = Sampled(asked, completions, score_replies(self.scorer, asked, completions))
        scores = sampled.scores + shaping_of(self.shaping, sampled.conversations, sampled.texts)
        share = len(asked) // world()
        own = slice(rank() * share, (rank() + 1) * share)
        return {
            "prompt_ids": [prompt.ids for prompt in asked[own]],
            "completion_ids": [completion.tokens for completion in completions[own]],
            "logprobs": [completion.logprobs for completion in completions[own]],
            "score": scores[own].tolist(),
        }


def reply_figures(completions: Sequence[Completion]) -> dict[str, float]:
    """Entropy in nats a token, as the replies estimate it; their mean length in tokens; the share that ended."""
    tokens = sum(len(completion.tokens) for completion in completions)
    return {
        "entropy": -sum(sum(completion.logprobs) for completion in completions) / tokens,
        "length": tokens / len(completions),
        "ended": sum(completion.finish == "stop" for completion in completions) / len(completions),
    }


def scores_of(score: list[float], **_: Any) -> list[float]:
    """TRL's reward function: what the rollout has found already."""
    return score


def kl_of(trainer: GRPOTrainer, model: CausalModel, config: GRPOSettings, compute: Compute, pad_id: int) -> ReplyKL:
    """From the policy that training begins with: TRL's copy of it where there is one, else the base below a new
    adapter, else a copy of our own."""
    policy = Forward(model)
    if trainer.ref_model is not None:
        return ReplyKL(policy, Forward(trainer.ref_model), compute, pad_id, config.micro_tokens)
    if isinstance(model, PeftModel) and TRL_REFERENCE in model.peft_config:
        return ReplyKL(policy, policy, compute, pad_id, config.micro_tokens, lambda: switched(model, TRL_REFERENCE))
    if isinstance(model, PeftModel) and not adapter_base(config.policy):
        return ReplyKL(policy, policy, compute, pad_id, config.micro_tokens, model.disable_adapter)
    return ReplyKL(policy, Forward(load_causal(config.policy, compute)), compute, pad_id, config.micro_tokens)


class Lookout:
    """After each step: the evaluation that is due, and whether the policy has run away."""

    def __init__(self, config: GRPOSettings, rollouts: Rollouts, held: HeldoutEvaluator) -> None:
        self.config, self.rollouts, self.held = config, rollouts, held
        self.monitor = DivergenceMonitor(kl_penalized=config.beta > 0, cap=config.sampling.max_new_tokens)

    def after(self, step: int, figures: Mapping[str, float]) -> str:
        if due(step, self.config.evaluate_every):
            self.held.evaluate(step)
        return self.monitor.update(self.rollouts.figures | {"token_kl": figures.get("kl", 0.0)})

    def state(self) -> dict[str, Any]:
        return {"watch": self.monitor.state(), "heldout": self.held.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.monitor.load(state["watch"])
        self.held.load(state["heldout"])


def largest_divisor(of: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`; at least 1."""
    return max((n for n in range(1, of + 1) if of % n == 0 and n <= most), default=1)
