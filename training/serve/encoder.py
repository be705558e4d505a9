"""One model's tokenizer and chat template at work, apart from the event loop and from the other models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from training.serve.protocol import APIError

MAX_WAITING: Final = 256
STUCK_SECONDS: Final = 30.0  # several times what a chat template may take
T = TypeVar("T")


class Encoder:
    """One thread, because tokenizers are not made for several at once."""

    def __init__(self, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._stuck_seconds = stuck_seconds
        self._waiting = 0
        self._since: float | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives. Raises what it raises, and APIError 429 where too many wait."""
        if self._waiting >= MAX_WAITING:
            raise APIError(429, f"{MAX_WAITING} prompts wait to be read by this model; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, work)
        finally:
            self._waiting -= 1

    def _timed(self, work: Callable[[], T]) -> T:
        self._since = time.monotonic()
        try:
            return work()
        finally:
            self._since = None

    @property
    def stuck(self) -> bool:
        """Whether one prompt has been under way for longer than any should."""
        since = self._since
        return since is not None and time.monotonic() - since > self._stuck_seconds
