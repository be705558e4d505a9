"""What goes into the engine and what comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from training.contract import SamplingSettings, TrainingError

Finish = Literal["stop", "length", "cancelled"]


class PromptTooLong(TrainingError):
    """The prompt leaves no room for a reply in `context` tokens: the model's, or what memory there is for."""

    def __init__(self, tokens: int, context: int, model_context: int | None = None) -> None:
        if model_context is None or context >= model_context:
            whose = f"the model's context of {context}"
        else:
            whose = f"{context} tokens: the server has no memory for keys and values of more, though the model could"
            whose += f" read {model_context}"
        super().__init__(
            f"the prompt has {tokens} tokens; prompt and reply together must fit in {whose}",
            code="prompt_too_long",
        )


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one reply is drawn.

    temperature: 0 takes the likeliest token. top_p, top_k: 1 and 0 leave the distribution whole. seed: the i-th token
    is drawn with the i-th number of this seed's stream, whatever else is in the batch. stop: strings before which the
    text is cut. stop_ids: tokens that end the reply; None means the model's own. top_logprobs: alternatives reported
    per token. tempered: report log-probabilities of the distribution at this temperature, not of the model's own.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 96
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] | None = None
    top_logprobs: int = 0
    tempered: bool = False

    def __post_init__(self) -> None:
        for good, sentence in (
            (self.temperature >= 0, f"temperature {self.temperature} must be 0 or more"),
            (0 < self.top_p <= 1, f"top_p {self.top_p} must be above 0 and at most 1"),
            (self.top_k >= 0, f"top_k {self.top_k} must be 0 or more"),
            (self.max_new_tokens >= 1, f"max_new_tokens {self.max_new_tokens} must be 1 or more"),
            (all(self.stop), "a stop string must not be empty"),
        ):
            if not good:
                raise TrainingError(sentence, code="sampling_invalid")

    @classmethod
    def of(
        cls,
        settings: SamplingSettings,
        *,
        seed: int,
        stop: tuple[str, ...] = (),
        stop_ids: frozenset[int] | None = None,
        tempered: bool = False,
    ) -> SamplingParams:
        return cls(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            stop=stop,
            stop_ids=stop_ids,
            tempered=tempered,
        )


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of a reply under way; tokens and their log-probabilities that came since the last one."""

    text: str
    tokens: list[int]
    logprobs: list[float]
    top: list[dict[int, float]]


@dataclass(eq=False, slots=True)
class EngineRequest:
    """One reply wanted. `on_delta`, where given, is called after each token from the thread that steps the engine."""

    prompt: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    on_delta: Callable[[Delta], None] | None = None


@dataclass(slots=True)
class Completion:
    """A reply. `tokens` holds the end-of-text id where it was produced; `logprobs[i]` is log
    softmax(logits)[tokens[i]] in float32, before top_p and top_k, and before the temperature unless `tempered`;
    `top[i]` the likeliest tokens with theirs, where asked for. `text` leaves special tokens out and is cut before a
    stop string."""

    tokens: list[int]
    logprobs: list[float]
    text: str
    finish: Finish
    top: list[dict[int, float]] = field(default_factory=list)


def derive_seed(*inputs: int | str) -> int:
    """A 64-bit seed that depends on all of `inputs` and nothing else, e.g. derive_seed(run seed, prompt id, k)."""
    text = "\x1f".join(str(value) for value in inputs)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def uniforms(seed: int, count: int) -> np.ndarray:
    """[count] float32 in [0, 1): the first numbers of the counter-based stream of `seed` (Philox, Salmon et al. 2011).
    24 bits each, so that 1.0 is never reached by rounding."""
    bits = np.random.Philox(key=seed & 0xFFFF_FFFF_FFFF_FFFF).random_raw(count)
    return ((bits >> np.uint64(40)).astype(np.float32)) * np.float32(2.0**-24)
