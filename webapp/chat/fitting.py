"""Fitting a conversation into what the model can read.

The rule: the system turn and the newest exchanges stay, and whole exchanges drop from the oldest on, until the prompt
and a reply have room. The model server counts the tokens (`/tokenize`, as vLLM has it). If it cannot, the conversation
is sent whole, and the older half of it drops each time the server says that it is too long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from webapp.errors import BadInput
from webapp.model_server.completions import Size, count_tokens

REPLY_SHARE: Final = 4  # at most a quarter of the context is kept free for the reply
SPARE_TOKENS: Final = 64  # what a chat template may add around a conversation
SPARE_PER_TURN: Final = 16
Turns = Sequence[Mapping[str, str]]


Count = Callable[[str, Turns], Awaitable[Size | None]]


def starts_of(turns: Turns) -> list[int]:
    """Where the conversation may begin: at each of the user's turns."""
    return [number for number, turn in enumerate(turns) if turn["role"] == "user"]


def turns_from(turns: Turns, start: int) -> list[Mapping[str, str]]:
    """The system turn, and everything from `start` on."""
    return [*(turn for turn in turns[:start] if turn["role"] == "system"), *turns[start:]]


def surely_fits(turns: Turns, context: int | None, room: int) -> bool:
    """Whether it fits even if each byte were a token, so that nobody need count."""
    size = SPARE_TOKENS + sum(len(turn["content"].encode()) + SPARE_PER_TURN for turn in turns)
    return context is not None and size + room <= context


async def first_turn_that_fits(
    turns: Turns, *, model: str, context: int | None, max_tokens: int, count: Count = count_tokens
) -> int:
    """The earliest turn of the user's to begin with. Raises BadInput if the newest turn alone is too long.

    0 if nothing is dropped or the server does not count.
    """
    if surely_fits(turns, context, min(max_tokens, (context or 0) // REPLY_SHARE)):
        return 0
    whole = await count(model, turns)
    if whole is None or whole.tokens + room_for(whole, max_tokens) <= whole.limit:
        return 0
    starts = starts_of(turns)
    newest = await count(model, turns_from(turns, starts[-1])) or whole
    if newest.tokens >= newest.limit:
        raise message_too_long(newest)
    low, high = 1, len(starts) - 1  # the answer lies in starts[low..high]
    while low < high:
        middle = (low + high) // 2
        size = await count(model, turns_from(turns, starts[middle])) or whole
        if size.tokens + room_for(size, max_tokens) <= size.limit:
            high = middle
        else:
            low = middle + 1
    return starts[high]


def room_for(size: Size, max_tokens: int) -> int:
    return min(max_tokens, max(1, size.limit // REPLY_SHARE))


def later_start(turns: Turns, start: int) -> int | None:
    """Where to begin when what began at `start` was too long still: after the older half of its exchanges."""
    later = [number for number in starts_of(turns) if number > start]
    return later[(len(later) - 1) // 2] if later else None


def message_too_long(size: Size | None = None) -> BadInput:
    measure = f": it has {size.tokens:,} tokens, and the model reads {size.limit:,}" if size else ""
    return BadInput(
        f"Your message is longer than this model can read{measure}. Shorten it, or send it in parts.",
        code="message_too_long",
    )


def reason_of(ended: str, written: int | None, max_tokens: int) -> str:
    """Why the reply ended; of `length`, whether by the project's limit or by the end of what the model can hold."""
    if ended == "length" and written is not None and written < max_tokens:
        return "context"
    return ended


def tokens_written(chunk: Mapping[str, Any]) -> int | None:
    usage = chunk.get("usage")
    return usage.get("completion_tokens") if isinstance(usage, dict) else None
