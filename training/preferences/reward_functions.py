"""Rewards that are written down instead of learned: for toy tasks, for tests, and for goals a formula can state.

A config names one as `function:NAME` in place of a reward model's folder. Functions of your own are registered by the
modules that TUTELAGE_REWARDS names, separated by commas; whoever runs the training worker sets it, so a config alone
never decides what code runs.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.contract import InputError, TrainingError, Turn, parts_of_shaping

RewardFunction = Callable[[Sequence[Turn], str], float]
PREFIX = "function:"
OWN = "TUTELAGE_REWARDS"
_REGISTERED: dict[str, RewardFunction] = {}


def reward_function(name: str) -> Callable[[RewardFunction], RewardFunction]:
    """Registers a function of (conversation up to the reply, reply) -> score under `function:<name>`."""

    def register(function: RewardFunction) -> RewardFunction:
        if _REGISTERED.setdefault(name, function) is not function:
            raise ValueError(f"a reward function named {name} is registered already")
        return function

    return register


def find_reward_function(reference: str) -> RewardFunction:
    """The function that `function:<name>` names. Raises InputError if there is none."""
    name = reference.removeprefix(PREFIX)
    register_own()
    if name not in _REGISTERED:
        registered = ", ".join(PREFIX + registered for registered in sorted(_REGISTERED))
        raise InputError(f"no reward function is named {reference}; there are {registered}", code="reward_missing")
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


def find_shaping(text: str) -> list[tuple[float, RewardFunction]]:
    """The functions of a `shaping` setting with their weights. Raises InputError if one is not registered."""
    return [(weight, find_reward_function(PREFIX + name)) for name, weight in parts_of_shaping(text)]


def shaping_of(
    shaping: Sequence[tuple[float, RewardFunction]], prompts: Sequence[Sequence[Turn]], replies: Sequence[str]
) -> Tensor:
    """For each of N replies the functions' weighted sum (N,), zeros if there is none. Raises TrainingError if it
    is no finite number."""
    shaped = [sum(w * function(a, r) for w, function in shaping) for a, r in zip(prompts, replies, strict=True)]
    if not all(map(math.isfinite, shaped)):
        raise TrainingError(
            "shaping: a function gave what is no finite number to a reply; look whether it divides by zero",
            code="reward_not_finite",
        )
    return torch.tensor(shaped, dtype=torch.float32)


@reward_function("brevity")
def brevity(messages: Sequence[Turn], reply: str) -> float:  # noqa: ARG001 - the signature of every reward function
    """Best, 0, for saying nothing; one less for each hundred characters."""
    return -len(reply) / 100


@reward_function("digits")
def digits(messages: Sequence[Turn], reply: str) -> float:  # noqa: ARG001 - the signature of every reward function
    """The share of the reply's characters that are digits: from 0 to 1, and 0 for an empty reply."""
    return sum(character in "0123456789" for character in reply) / max(len(reply), 1)
