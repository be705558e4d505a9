"""Reward functions that tests name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from training.contract import Turn
from training.preferences.reward_functions import RewardBatch, batch_reward_function, reward_function

CALLS = {"asked": 0}


@reward_function("nothing-much")
def nothing_much(messages: Sequence[Turn], reply: str) -> float:
    return 0.0


@reward_function("always-three")
def always_three(messages: Sequence[Turn], reply: str) -> float:
    return 3.0


@reward_function("not-a-number")
def not_a_number(messages: Sequence[Turn], reply: str) -> float:
    return float("nan")


@reward_function("twos")
def twos(messages: Sequence[Turn], reply: str) -> float:
    return float(reply.count("2"))


@reward_function("digits-of-odd")
def digits_of_odd(messages: Sequence[Turn], reply: str) -> float:
    """The share of digits in replies to prompts that end in an odd number; nothing to the others."""
    odd = int(messages[-1].content.split()[-1]) % 2
    return odd * sum(letter.isdigit() for letter in reply) / max(1, len(reply))


@reward_function("worse-and-worse")
def worse_and_worse(messages: Sequence[Turn], reply: str) -> float:
    CALLS["asked"] += 1
    return -float(CALLS["asked"])


@batch_reward_function("shares")
def shares(batch: RewardBatch, *, of: str = "a") -> list[float | None]:
    """The share of a letter, but nothing of replies to prompts whose data says so."""
    print("this goes to the log")
    return [
        None if data.get("mute") else reply.count(of) / max(1, len(reply))
        for reply, data in zip(batch.replies, batch.data, strict=True)
    ]


@batch_reward_function("misbehaves")
def misbehaves(batch: RewardBatch) -> list[float | None]:
    """Does what the first reply says, in its own way."""
    match batch.replies[0]:
        case "hang":
            time.sleep(3600)
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            raise RuntimeError("the judge has gone home")
        case "too few":
            return [1.0] * (len(batch) - 1)
        case "words":
            return ["good"] * len(batch)  # type: ignore[list-item]
    return [float(len(reply)) for reply in batch.replies]
