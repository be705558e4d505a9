"""Prompts in, replies with their scores out: what PPO and evaluation ask the engine and the reward for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.contract import InputError, LongPrompts, PromptRow, SamplingSettings, TrainingError, Turn
from training.data.chat_format import ChatFormat
from training.data.fitting import Fitted, RowCounts, fit_prompt
from training.distributed.collectives import map_sharded
from training.engine import Completion, Engine, EngineRequest, SamplingParams, derive_seed
from training.models.compute import Compute
from training.preferences.ensemble import Ensemble
from training.preferences.reward_functions import PREFIX, find_reward_function
from training.preferences.reward_model import load_members
from training.run.run import Run

Scorer = Callable[[Sequence[Sequence[Turn]], Sequence[str]], list[float]]


@dataclass(frozen=True)
class EncodedPrompt:
    row: PromptRow
    ids: list[int]


class Sampled(NamedTuple):
    """N replies, one each to N prompts, which may repeat."""

    prompts: list[EncodedPrompt]
    completions: list[Completion]
    scores: Tensor  # (N,)

    @property
    def prompt_ids(self) -> list[list[int]]:
        return [prompt.ids for prompt in self.prompts]

    @property
    def reply_ids(self) -> list[list[int]]:
        return [completion.tokens for completion in self.completions]

    @property
    def conversations(self) -> list[Sequence[Turn]]:
        return [prompt.row.messages for prompt in self.prompts]

    @property
    def texts(self) -> list[str]:
        return [completion.text for completion in self.completions]

    @property
    def ended(self) -> Tensor:
        return torch.tensor([completion.finish == "stop" for completion in self.completions])

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([len(completion.tokens) for completion in self.completions])


def encode_prompts(
    rows: Sequence[PromptRow], chat: ChatFormat, limit: int, long_prompts: LongPrompts = "drop", scorer: object = None
) -> tuple[list[EncodedPrompt], RowCounts]:
    """The prompts in at most `limit` tokens, and what was left out or shortened. `scorer`: what will score the replies;
    prompts that a reward model's template refuses are left out, too."""
    changes = RowCounts("prompts", limit)
    prompts = []
    formats = reward_formats(scorer)
    for row in rows:
        with changes.leave_out_if_refused(row.id):
            ids = chat.prompt(row.messages)
            for reward_format in formats:
                reward_format.prompt(row.messages)
            shorten = long_prompts == "shorten"
            fitted = fit_prompt(chat, row.messages, limit, ids) if shorten else Fitted(row.messages, ids)
            if fitted is None or len(fitted.ids) > limit:
                changes.add("left_out/too_long", row.id)
                continue
            changes.add_fitted(fitted, row.id, chat)
            prompts.append(EncodedPrompt(row, fitted.ids))
    return prompts, changes


def reward_formats(scorer: object) -> list[ChatFormat]:
    """How the reward models of a scorer read a conversation; none if it is a function."""
    return [ChatFormat(tokenizer) for _, tokenizer in scorer.members] if isinstance(scorer, Ensemble) else []


def warn_of_changes(run: Run[Any], changes: RowCounts, total: int) -> None:
    """Log what happened to the prompts, of `total`, that did not fit."""
    for sentence in changes.sentences(total):
        run.warn(sentence)


ALWAYS_COUNTED: Final = ("left_out/too_long", "cut/older_turns", "cut/question")


def prompt_room(context: int, max_prompt_tokens: int, max_new_tokens: int) -> int:
    """The longest prompt to which a full reply fits into the model's context. Raises InputError if none does."""
    if max_new_tokens >= context:
        raise InputError(
            f"max_new_tokens: replies of {max_new_tokens} tokens leave no room for a prompt in the model's context of "
            f"{context}",
            code="config_invalid",
        )
    return min(max_prompt_tokens, context - max_new_tokens)


def prompts_of_step(count: int, step: int, per_step: int, seed: int) -> list[int]:
    """Which of `count` prompts a step takes: all of them in a new random order in each pass over them. The answer
    depends on nothing but the arguments, so a resumed run goes on where it was."""
    begin = step * per_step
    orders: dict[int, np.ndarray] = {}
    indices = []
    for position in range(begin, begin + per_step):
        pass_, within = divmod(position, count)
        if pass_ not in orders:
            orders[pass_] = np.random.default_rng((seed, pass_)).permutation(count)
        indices.append(int(orders[pass_][within]))
    return indices


def sample_replies(
    engine: Engine, prompts: Sequence[EncodedPrompt], sampling: SamplingSettings, seed: Sequence[int | str]
) -> list[Completion]:
    """One reply to each prompt, in their order; the i-th draws from the stream of (seed, i). Log-probabilities are
    those at the sampling temperature, the policy that learns."""
    params = partial(SamplingParams.of, sampling, stop_ids=engine.stop_ids, tempered=True)
    requests = [EngineRequest(prompt.ids, params(seed=derive_seed(*seed, i))) for i, prompt in enumerate(prompts)]
    return map_sharded(requests, engine.generate)


def load_scorer(source: str | Sequence[str], compute: Compute, pessimism: float = 0.0) -> Scorer:
    """The scorer that `source` names: a reward model's folder, several of them, or function:<name>. Raises InputError.

    A reward model reads the text in its own tokens, so policy and reward model may have different tokenizers.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        function = find_reward_function(source)
        return lambda prompts, replies: [function(a, r) for a, r in zip(prompts, replies, strict=True)]
    if any(reference.startswith(PREFIX) for reference in source):
        raise InputError(
            "reward: several rewards are reward models that score as one; a function stands alone",
            code="config_invalid",
        )
    return Ensemble(load_members(source or "", compute), compute, pessimism)


def score_replies(scorer: Scorer, prompts: Sequence[EncodedPrompt], completions: Sequence[Completion]) -> Tensor:
    """The scores of the replies (N,). Raises TrainingError if one is no finite number."""
    scores = map_sharded(
        [(prompt.row.messages, completion.text) for prompt, completion in zip(prompts, completions, strict=True)],
        lambda pairs: scorer([messages for messages, _ in pairs], [reply for _, reply in pairs]),
    )
    for prompt, value in zip(prompts, scores, strict=True):
        if not math.isfinite(value):
            raise TrainingError(
                f"the reward of a reply to {prompt.row.id} is {value}: the reward model is damaged, or the reward "
                "function divides by zero",
                code="reward_not_finite",
            )
    return torch.tensor(scores, dtype=torch.float32)


def pad_rows(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.float32) -> Tensor:
    """Ragged rows as (N, T) with zeros on the right."""
    filled = torch.zeros(len(rows), max(map(len, rows)), dtype=dtype)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return filled
