"""What PPO and GRPO set up alike: rows, reward, the engine that samples replies, and the prompts."""

from __future__ import annotations

from typing import NamedTuple

from training.contract import GRPOSettings, InputError, PPOSettings, PromptRow
from training.contract.memory import MAX_SLOTS
from training.data.chat_format import ChatFormat
from training.distributed.launch import is_sharded
from training.engine import Engine
from training.models.checks import check_vocabulary
from training.models.compute import Compute, prepare
from training.models.loading import CausalModel, load_tokenizer
from training.preferences.rewards import Rewards
from training.rl.rollouts import (
    ALWAYS_COUNTED,
    EncodedPrompt,
    encode_prompts,
    load_scorer,
    prompt_room,
    warn_of_changes,
)
from training.run.run import Run


class RolloutInputs(NamedTuple):
    """What a stage that samples replies needs before its policy is loaded."""

    prompt_rows: list[PromptRow]
    heldout_rows: list[PromptRow]
    compute: Compute
    chat: ChatFormat
    scorer: Rewards


class RolloutSetup(NamedTuple):
    """What samples the replies, and to which prompts."""

    engine: Engine
    prompts: list[EncodedPrompt]
    heldout_prompts: list[EncodedPrompt]
    counts: dict[str, int]  # of prompts used, shortened and left out, for the result


def load_rollout_inputs(run: Run[PPOSettings] | Run[GRPOSettings]) -> RolloutInputs:
    config = run.config
    prompt_rows = run.rows("prompts", PromptRow, config.min_rows)
    heldout_rows = run.rows("heldout", PromptRow)
    compute = prepare(run)
    chat = ChatFormat(load_tokenizer(config.policy, run), config.policy)
    scorer = load_scorer(config.reward, compute, config.pessimism, config.rewards, run.warn)
    if scorer.ensemble is not None:
        if is_sharded():
            for reward, _ in scorer.ensemble.members:
                reward.shard(compute)
        check_reading_length(run, min(model.max_tokens for model, _ in scorer.ensemble.members))
    return RolloutInputs(prompt_rows, heldout_rows, compute, chat, scorer)


def set_up_rollouts(
    run: Run[PPOSettings] | Run[GRPOSettings], inputs: RolloutInputs, model: CausalModel
) -> RolloutSetup:
    """The engine around the policy `model`, and the prompts that leave room for a full reply. Raises InputError if
    there are too few of them."""
    config, chat = run.config, inputs.chat
    check_vocabulary(chat, model, config.policy)
    slots = min(config.prompts_per_step * config.samples_per_prompt, MAX_SLOTS)
    engine = Engine(model, chat.tokenizer, slots=slots, stop_ids=chat.stop_ids, dtype=inputs.compute.dtype)
    limit = prompt_room(engine.context, config.max_prompt_tokens, config.sampling.max_new_tokens)
    total = len(inputs.prompt_rows)
    prompts, changes = encode_prompts(inputs.prompt_rows, chat, limit, config.long_prompts, inputs.scorer)
    heldout, heldout_changes = encode_prompts(inputs.heldout_rows, chat, limit, config.long_prompts, inputs.scorer)
    if len(prompts) < config.min_rows:
        raise InputError(
            f"{run.stage}: {len(prompts)} of {total} prompts can be used, at least {config.min_rows} are needed; "
            f"{'; '.join(changes.sentences(total))}. Raise max_prompt_tokens, lower max_new_tokens, or set "
            "long_prompts to shorten",
            code="too_few_rows",
        )
    warn_of_changes(run, changes, total)
    counts = {"prompts": len(prompts), **changes.named(*ALWAYS_COUNTED)}
    counts |= {"heldout": len(heldout), **heldout_changes.named(*ALWAYS_COUNTED, prefix="heldout/")}
    return RolloutSetup(engine, prompts, heldout, counts)


def check_reading_length(run: Run[PPOSettings] | Run[GRPOSettings], max_tokens: int) -> None:
    """Warn if the reward model, which reads `max_tokens` tokens, may not see a prompt and its reply whole. Raises
    InputError if a reply alone may be longer."""
    reply = run.config.sampling.max_new_tokens
    if reply >= max_tokens:
        raise InputError(
            f"sampling.max_new_tokens: replies of {reply} tokens are longer than the {max_tokens} that the reward "
            "model reads; lower it, or train the reward model with a higher max_tokens",
            code="config_invalid",
        )
    if run.config.max_prompt_tokens + reply > max_tokens:
        run.warn(
            f"the reward model reads {max_tokens} tokens, and a prompt and its reply may have "
            f"{run.config.max_prompt_tokens + reply}: longer ones are shortened before they are scored"
        )


def check_sampling(run: Run[PPOSettings] | Run[GRPOSettings]) -> None:
    """Warn if replies are sampled from a distribution that the update cannot see. Raises InputError if the policy could
    not explore."""
    sampling = run.config.sampling
    if sampling.top_p < 1 or sampling.top_k > 0:
        run.warn(
            "top_p and top_k cut the distribution that replies are sampled from, but the update takes the "
            "probabilities of the whole one; set top_p to 1 and top_k to 0 if training is unstable"
        )
    if sampling.temperature == 0:
        raise InputError(
            "sampling.temperature: 0 gives the same reply every time, so there is nothing to learn from; set it to 1",
            code="config_invalid",
        )
