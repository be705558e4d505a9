"""A request on its way through the engine, and what a batch of them needs as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from training.engine.detokenizer import Detokenizer, StopStrings
from training.engine.engine_request import Delta, EngineRequest, Finish
from training.engine.sampling import DrawSettings

GREEDY_BELOW = 1e-5  # temperatures under this overflow when divided by


@dataclass(eq=False, slots=True)
class Running:
    """A request under way, or waiting for its turn."""

    request: EngineRequest
    room: int  # most tokens it may produce
    stop_ids: frozenset[int]
    detokenizer: Detokenizer | None
    stops: StopStrings
    numbers: np.ndarray  # [room] the random number of each token
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[dict[int, float]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    delivered: int = 0  # tokens handed to on_delta
    finish: Finish | None = None
    pages: list[int] = field(default_factory=list)  # where its keys and values are
    filled: int = 0  # tokens at its beginning that another sequence, which shares the pages, has put there
    age: int = 0  # the lower, the earlier it was begun

    @property
    def ids(self) -> list[int]:
        """All its tokens: what has to be read where it has no keys and values."""
        return self.request.prompt + self.tokens

    @property
    def length(self) -> int:
        return len(self.request.prompt) + len(self.tokens)

    def push(self, token: int, logprob: float) -> None:
        """Take the next token; sets `finish` where the reply ends with it."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in self.stop_ids:
            self.finish = "stop"
        elif len(self.tokens) == self.room:
            self.finish = "length"
        if self.detokenizer is not None:
            self._say(self.detokenizer, token)

    def _say(self, detokenizer: Detokenizer, token: int) -> None:
        text = "" if self.finish == "stop" else detokenizer.push(token)
        if self.finish:
            text += detokenizer.flush()
        text = self.stops.push(text)
        if self.stops.found:
            self.finish = "stop"
        elif self.finish:
            text += self.stops.flush()
        self.text.append(text)
        if self.request.on_delta is not None and (text or self.finish):
            begin, self.delivered = self.delivered, len(self.tokens)
            self.request.on_delta(Delta(text, self.tokens[begin:], self.logprobs[begin:], self.top[begin:]))


@dataclass(slots=True)
class Rows:
    """Sampling parameters of n rows."""

    draw: DrawSettings
    alternatives: int
    tempered: Tensor | None  # whose log-probabilities are to be at their temperature; None: nobody's

    @classmethod
    def of(cls, running: list[Running], device: torch.device) -> Rows:
        params = [row.request.params for row in running]
        tempered = [p.tempered and p.temperature >= GREEDY_BELOW and p.temperature != 1 for p in params]
        temperatures = [p.temperature if p.temperature >= GREEDY_BELOW else 0.0 for p in params]
        return cls(
            DrawSettings.of(temperatures, [p.top_k for p in params], [p.top_p for p in params], device),
            max(p.top_logprobs for p in params),
            torch.tensor(tempered, device=device) if any(tempered) else None,
        )


def alike(waiting: list[Running]) -> Iterator[list[Running]]:
    """Groups of prompts so alike in length that padding them to the longest costs less than reading them apart."""
    group: list[Running] = []
    for running in sorted(waiting, key=lambda running: -running.length):
        if group and running.length < 0.75 * group[0].length - 16:
            yield group
            group = []
        group.append(running)
    yield group
