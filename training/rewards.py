"""Rewards that are written down instead of learned: for toy tasks, for tests, and for goals a formula can state.

A config names one as `function:NAME` in place of a reward model's folder. A project's own are added by registering them
before the stage starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from training.contract import InputError, Turn

RewardFunction = Callable[[Sequence[Turn], str], float]
PREFIX = "function:"
_REGISTERED: dict[str, RewardFunction] = {}


def reward_function(name: str) -> Callable[[RewardFunction], RewardFunction]:
    """Registers a function of (conversation up to the reply, reply) -> score under `function:<name>`."""

    def register(function: RewardFunction) -> RewardFunction:
        if _REGISTERED.setdefault(name, function) is not function:
            raise ValueError(f"a reward function named {name} is registered already")
        return function

    return register


def find_reward_function(reference: str) -> RewardFunction:
    """The function that `function:<name>` names. Raises InputError where there is none."""
    name = reference.removeprefix(PREFIX)
    if name not in _REGISTERED:
        known = ", ".join(PREFIX + known for known in sorted(_REGISTERED))
        raise InputError(f"no reward function is named {reference}; there are {known}", code="reward_missing")
    return _REGISTERED[name]


@reward_function("brevity")
def brevity(messages: Sequence[Turn], reply: str) -> float:  # noqa: ARG001 - the signature of every reward function
    """Best, 0, for saying nothing; one less for each hundred characters."""
    return -len(reply) / 100


@reward_function("digits")
def digits(messages: Sequence[Turn], reply: str) -> float:  # noqa: ARG001 - the signature of every reward function
    """The share of the reply's characters that are digits: from 0 to 1, and 0 for an empty reply."""
    return sum(character in "0123456789" for character in reply) / max(len(reply), 1)
