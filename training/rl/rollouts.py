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

from training.contract import InputError, LongPrompts, PromptRow, SamplingSettings, TrainingError
from training.contract.rewards import RewardTermBase
from training.data.chat_format import ChatFormat
from training.data.fitting import Fitted, RowCounts, fit_prompt
from training.distributed.collectives import map_sharded
from training.engine import Completion, Engine, EngineRequest, SamplingParams, derive_seed
from training.models.compute import Compute
from training.preferences.ensemble import Ensemble
from training.preferences.reward_functions import PREFIX
from training.preferences.reward_model import load_members
from training.preferences.rewards import Rewards, ScoredReply, Warner, function_terms, shaping_of
from training.run.reporting import ProgressCallback, ignore_progress
from training.run.run import Run

Scorer = Callable[[Sequence[PromptRow], Sequence[str]], list[ScoredReply]]


@dataclass(frozen=True)
class EncodedPrompt:
    row: PromptRow
    ids: list[int]


class Sampled(NamedTuple):
    """N replies, one each to N prompts, which may repeat."""

    prompts: list[EncodedPrompt]
    completions: list[Completion]
    scores: Tensor  # (N,)
    components: Sequence[ScoredReply] = ()  # N, unless the scores are nobody's sum

    @property
    def prompt_ids(self) -> list[list[int]]:
        return [prompt.ids for prompt in self.prompts]

    @property
    def reply_ids(self) -> list[list[int]]:
        return [completion.tokens for completion in self.completions]

    @property
    def rows(self) -> list[PromptRow]:
        return [prompt.row for prompt in self.prompts]

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
    rows: Sequence[PromptRow],
    chat: ChatFormat,
    limit: int,
    long_prompts: LongPrompts = "drop",
    scorer: object = None,
    *,
    keep_unscored: bool = False,
) -> tuple[list[EncodedPrompt], RowCounts]:
    """The prompts in at most `limit` tokens, and what was left out or shortened. `scorer`: what will score the replies;
    prompts that a reward model's template refuses are left out, too, and so are those of which no reward can say
    anything, unless `keep_unscored`."""
    changes = RowCounts("prompts", limit)
    prompts = []
    formats = reward_formats(scorer)
    for row in rows:
        if isinstance(scorer, Rewards) and not keep_unscored and not scorer.can_score(row):
            changes.add("left_out/no_reference", row.id)
            continue
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
    """How the reward models of a scorer read a conversation; none if it has none."""
    ensemble = getattr(scorer, "ensemble", None)
    return [ChatFormat(tokenizer) for _, tokenizer in ensemble.members] if isinstance(ensemble, Ensemble) else []


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
    """One reply to each prompt, in their order."""
    return map_sharded(reply_requests(engine, prompts, sampling, seed), engine.generate)


def reply_requests(
    engine: Engine, prompts: Sequence[EncodedPrompt], sampling: SamplingSettings, seed: Sequence[int | str]
) -> list[EngineRequest]:
    """For one reply to each prompt; the i-th draws from the stream of (seed, i). Log-probabilities are those at the
    sampling temperature, the policy that learns."""
    params = partial(SamplingParams.of, sampling, stop_ids=engine.stop_ids, tempered=True)
    return [EngineRequest(prompt.ids, params(seed=derive_seed(*seed, i))) for i, prompt in enumerate(prompts)]


def load_scorer(
    source: str | Sequence[str],
    compute: Compute,
    pessimism: float = 0.0,
    terms: Sequence[RewardTermBase] = (),
    warn: Warner | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Rewards:
    """What scores replies: the reward models in the folders that `source` names, as an ensemble if they are several,
    its function:<name> if there are any, and the `terms`. Reward models tell how many replies they have scored. Raises
    InputError.

    A reward model reads the text in its own tokens, so policy and reward model may have different tokenizers.
    """
    sources = [source] if isinstance(source, str) else list(source)
    folders = [reference for reference in sources if not reference.startswith(PREFIX)]
    named = function_terms([(name.removeprefix(PREFIX), 1.0) for name in sources if name.startswith(PREFIX)])
    terms = [*named, *terms]
    if terms:
        folders = list(filter(None, folders))
    ensemble = Ensemble(load_members(folders, compute), compute, pessimism, on_progress) if folders else None
    rewards = Rewards(terms, ensemble, warn)
    rewards.start()
    return rewards


def score_replies(
    scorer: Scorer, prompts: Sequence[EncodedPrompt], completions: Sequence[Completion]
) -> tuple[Tensor, list[ScoredReply]]:
    """The scores of N replies (N,), 0 where no reward has anything to say, and what they are made of. Raises
    TrainingError if one is no finite number."""
    scored = map_sharded(
        [(prompt.row, completion.text) for prompt, completion in zip(prompts, completions, strict=True)],
        lambda pairs: scorer([row for row, _ in pairs], [reply for _, reply in pairs]),
    )
    for prompt, reply in zip(prompts, scored, strict=True):
        if reply.score is not None and not math.isfinite(reply.score):
            raise TrainingError(
                f"the reward of a reply to {prompt.row.id} is {reply.score}: the reward model is damaged",
                code="reward_not_finite",
            )
    return torch.tensor([reply.score or 0.0 for reply in scored], dtype=torch.float32), scored


def reward_figures(scored: Sequence[ScoredReply], prefix: str) -> dict[str, float]:
    """The mean of each reward over the replies that it scored, if there are several rewards, and the share of replies
    for which one failed."""
    figures: dict[str, float] = {}
    names = list(scored[0].components) if scored else []
    for name in names:
        values = [value for reply in scored if (value := reply.components[name]) is not None]
        if values and len(names) > 1:
            figures[f"{prefix}{name}"] = sum(values) / len(values)
        if failures := sum(name in reply.failed for reply in scored):
            figures[f"{prefix}{name}_failed"] = failures / len(scored)
    return figures


def shaped(shaping: Rewards | None, sampled: Sampled) -> Tensor:
    """What a `shaping` setting adds to the scores of N replies (N,)."""
    return torch.tensor(shaping_of(shaping, sampled.rows, sampled.texts), dtype=torch.float32)


def correct_replies(scorer: object, scored: Sequence[ScoredReply]) -> list[float] | None:
    """For each reply 1 if every reward that verifies replies gives it 1, else 0; None without such a reward."""
    verifying = getattr(scorer, "verifying", [])
    if not verifying:
        return None
    return [
        float(all(reply.components[name] in (None, 1.0) for name in verifying))
        * any(reply.components[name] is not None for name in verifying)
        for reply in scored
    ]


def pad_rows(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.float32) -> Tensor:
    """Ragged rows as (N, T) with zeros on the right."""
    filled = torch.zeros(len(rows), max(map(len, rows)), dtype=dtype)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return filled
