"""The GRPO stage: improves a policy by comparing replies to one prompt with each other (Shao et al. 2024,
arXiv:2402.03300).

TRL's GRPOTrainer computes the update; our engine gives the replies and our scorer their rewards, as in PPO. Events,
checkpoints, stopping and the result are those of every other stage.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from training.chatformat import ChatFormat
from training.contract import GRPOSettings, InputError, PromptRow
from training.engine import Engine
from training.model_checks import check_vocabulary
from training.models import about, load_causal, load_tokenizer, prepare
from training.rollouts import (
    Prompt,
    Scorer,
    encode_prompts,
    load_scorer,
    long_prompt_counts,
    prompt_room,
    prompts_of_step,
    sample_replies,
    score_replies,
)
from training.rundir import Run
from training.trl_stage import Steps, arguments, optimizers, save, train

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
    compute = prepare(run)
    tokenizer = load_tokenizer(config.policy, run)
    chat = ChatFormat(tokenizer, config.policy)
    scorer, _ = load_scorer(config.reward, compute)
    model = load_causal(config.policy, compute, lora=config.lora, trainable=True, copies=int(config.beta > 0))
    check_vocabulary(chat, model, config.policy)
    replies = config.prompts_per_step * config.samples_per_prompt
    engine = Engine(model, tokenizer, slots=min(replies, SLOTS), stop_ids=chat.stop_ids)
    room = prompt_room(engine.context, config.max_prompt_tokens, config.sampling.max_new_tokens)
    prompts, too_long = encode_prompts(rows, chat, room, config.long_prompts)
    heldout, _ = encode_prompts(heldout_rows, chat, room, config.long_prompts)
    if len(prompts) < config.min_rows:
        raise InputError(
            f"grpo: {too_long} of {len(rows)} prompts are longer than {room} tokens; raise max_prompt_tokens",
            code="too_few_rows",
        )
    longest = max(len(prompt.ids) for prompt in prompts) + config.sampling.max_new_tokens
    micro = largest_divisor(replies, config.micro_tokens // longest)
    steps = Steps(micro, replies // micro, config.steps)
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
        rollout_func=Rollouts(engine, scorer, prompts, config),
    )
    model.eval()
    before = heldout_reward(engine, scorer, heldout, config)
    figures = train(run, trainer, steps.total, heldout=False)
    model.eval()
    after = heldout_reward(engine, scorer, heldout, config)
    save(run, model, chat)
    run.finish(
        figures | ({"heldout_reward_before": before, "heldout_reward": after} if heldout else {}),
        counts={"prompts": len(prompts), "heldout": len(heldout)} | long_prompt_counts(too_long, config.long_prompts),
        model=about(model),
    )


class Rollouts:
    """Gives TRL replies, with the log-probabilities and scores that it computes with. Which prompts a step takes we say
    ourselves, as in PPO, so that a resumed run sees what it would have seen; TRL's own choice is passed over."""

    def __init__(self, engine: Engine, scorer: Scorer, prompts: list[Prompt], config: GRPOSettings) -> None:
        self.engine, self.scorer, self.prompts, self.config = engine, scorer, prompts, config

    def __call__(self, _: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        config, step = self.config, trainer.state.global_step
        chosen = prompts_of_step(len(self.prompts), step, config.prompts_per_step, config.seed)
        asked = [self.prompts[i] for i in chosen for _ in range(config.samples_per_prompt)]
        completions = sample_replies(self.engine, asked, config.sampling, (config.seed, "grpo", step))
        return {
            "prompt_ids": [prompt.ids for prompt in asked],
            "completion_ids": [completion.tokens for completion in completions],
            "logprobs": [completion.logprobs for completion in completions],
            "score": score_replies(self.scorer, asked, completions).tolist(),
        }


def scores_of(score: list[float], **_: Any) -> list[float]:
    """TRL's reward function: what the rollout has found already."""
    return score


@torch.no_grad()
def heldout_reward(engine: Engine, scorer: Scorer, prompts: list[Prompt], config: GRPOSettings) -> float:
    """The mean reward of a reply to each held-out prompt, drawn with the same random numbers every time."""
    if not prompts:
        return 0.0
    completions = sample_replies(engine, prompts, config.sampling, (config.seed, "heldout"))
    return float(score_replies(scorer, prompts, completions).mean())


def largest_divisor(of: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`; at least 1."""
    return max((n for n in range(1, of + 1) if of % n == 0 and n <= most), default=1)
