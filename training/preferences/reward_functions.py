"""Rewards that are written down instead of learned. Functions of your own are registered by the modules that
TUTELAGE_REWARDS names, separated by commas; whoever runs the training worker sets it, so a config alone never decides
what code runs.

They are called in a process of their own (reward_process.py), which need not import torch.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from training.contract import InputError, PromptRow, Turn

PREFIX: Final = "function:"
OWN: Final = "TUTELAGE_REWARDS"


@dataclass(frozen=True)
class RewardBatch:
    """N replies to N prompts, which may repeat."""

    prompts: Sequence[Sequence[Turn]]
    """The conversations up to the reply."""
    replies: Sequence[str]
    references: Sequence[Any]
    """The prompts' `reference`: a text or another JSON value, None where a prompt has none."""
    data: Sequence[dict[str, Any]]
    """The prompts' `data`: JSON objects, empty where a prompt has none."""

    @classmethod
    def of(cls, rows: Sequence[PromptRow], replies: Sequence[str]) -> RewardBatch:
        return cls([r.messages for r in rows], replies, [r.reference for r in rows], [r.data or {} for r in rows])

    def __len__(self) -> int:
        return len(self.replies)

    def part(self, indices: Sequence[int]) -> RewardBatch:
        return RewardBatch(
            [self.prompts[i] for i in indices],
            [self.replies[i] for i in indices],
            [self.references[i] for i in indices],
            [self.data[i] for i in indices],
        )


BatchRewardFunction = Callable[..., Sequence[float | None]]
"""Takes a batch and its parameters; returns a score for each reply, None where it has nothing to say."""
RewardFunction = Callable[[Sequence[Turn], str], float]
_REGISTERED: dict[str, Callable[..., Any]] = {}
_OF_BATCHES: set[str] = set()


def reward_function(name: str) -> Callable[[RewardFunction], RewardFunction]:
    """Registers a function of (conversation up to the reply, reply) -> score under `name`."""

    def add(function: RewardFunction) -> RewardFunction:
        register(name, function)
        return function

    return add


def batch_reward_function(name: str) -> Callable[[BatchRewardFunction], BatchRewardFunction]:
    """Registers a function of (batch, **parameters) -> scores under `name`."""

    def add(function: BatchRewardFunction) -> BatchRewardFunction:
        register(name, function)
        _OF_BATCHES.add(name)
        return function

    return add


def register(name: str, function: Callable[..., Any]) -> None:
    if _REGISTERED.setdefault(name, function) is not function:
        raise ValueError(f"a reward function named {name} is registered already")


def find_reward_function(reference: str) -> Callable[..., Any]:
    """The function that `function:<name>` names. Raises InputError if there is none."""
    name = reference.removeprefix(PREFIX)
    register_own()
    if name not in _REGISTERED:
        registered = ", ".join(PREFIX + registered for registered in sorted(_REGISTERED))
        raise InputError(f"no reward function is named {PREFIX}{name}; there are {registered}", code="reward_missing")
    return _REGISTERED[name]


def register_own() -> None:
    """Import the modules that TUTELAGE_REWARDS names. Raises InputError if one cannot be imported."""
    for module in filter(None, map(str.strip, os.environ.get(OWN, "").split(","))):
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module of somebody's does at its import
            raise InputError(
                f"{OWN}: {module} cannot be imported ({type(error).__name__}: {error})", code="reward_missing"
            ) from error


def call_reward_function(name: str, batch: RewardBatch, parameters: dict[str, Any]) -> list[float | None]:
    """The scores that a registered function gives. Raises what it raises, and ValueError if
    they do not fit the batch."""
    function = find_reward_function(name)
    if name in _OF_BATCHES:
        scores = function(batch, **parameters)
    else:
        scores = [function(prompt, reply) for prompt, reply in zip(batch.prompts, batch.replies, strict=True)]
    return checked_scores(scores, len(batch))


def checked_scores(scores: object, count: int) -> list[float | None]:
    """`scores` as a list of `count` finite numbers or None. Raises ValueError that says what else they are."""
    if isinstance(scores, str | bytes | dict) or not hasattr(scores, "__iter__"):
        raise ValueError(f"it gave {type(scores).__name__} in place of a list of scores")
    values = list(scores)
    if len(values) != count:
        raise ValueError(f"it gave {len(values)} scores for {count} replies")
    checked: list[float | None] = []
    for index, value in enumerate(values):
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"its score of reply {index + 1} is no number: {str(value)[:60]!r}") from None
        if number is not None and not math.isfinite(number):
            raise ValueError(
                f"its score of reply {index + 1} is {number}, which is no finite number; look whether it divides by "
                "zero"
            )
        checked.append(number)
    return checked


@reward_function("brevity")
def brevity(messages: Sequence[Turn], reply: str) -> float:  # noqa: ARG001 - the signature of every reward function
    """Best, 0, for saying nothing; one less for each hundred characters."""
    return -len(reply) / 100


@reward_function("digits")
def digits(messages: Sequence[Turn], reply: str) -> float:  # noqa: ARG001 - the signature of every reward function
    """The share of the reply's characters that are digits: from 0 to 1, and 0 for an empty reply."""
    return sum(character in "0123456789" for character in reply) / max(len(reply), 1)
