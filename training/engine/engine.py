"""The engine: which request runs in which slot, one token a slot a step.

Over 300 lines: admission, a step and the end of a request change the same slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from training.contract import TrainingError
from training.engine.detokenizer import Detokenizer, StopStrings, token_decoder
from training.engine.engine_request import Completion, EngineRequest, PromptTooLong, uniforms
from training.engine.kv_cache import SlotCache
from training.engine.llama_inference import LlamaForward, supports_inference
from training.engine.sampling import drawn, tempered_logprobs
from training.engine.sequence import GREEDY_BELOW, Rows, Running, alike
from training.engine.transformers_forward import GeneralForward
from training.models.loading import CausalModel, unwrap

FEW = 8  # above this many replies idle slots are moved on as well, up to a multiple of it: each shape wants its own
# kernels. Below, every row costs: a lone reply padded to 8 rows takes twice the time of one that is not.
NOT_FINITE = "the model gives numbers that are not finite (NaN): its weights are damaged or its training diverged"


class EngineForward(Protocol):
    def load(self) -> None: ...
    def drop(self) -> None: ...
    def prefill(self, prompts: Tensor, lengths: Tensor, slots: Tensor, rows: Tensor) -> Tensor: ...
    def decode(self, tokens: Tensor, positions: Tensor, length: int) -> Tensor: ...


class Engine:
    """Generates replies. One thread at a time may use it.

    model: a causal language model of transformers, PEFT-wrapped or not. live: its weights change between calls of
    `generate`, so they are read again each time; otherwise they are read once. owned: nobody else uses the model, which
    may be taken apart to have its weights in memory once. slots: replies generated at once.
    prefill_tokens: most prompt tokens read between two decoding steps. dtype: to compute in, where the model's
    architecture is written out here; otherwise, and by default, that of its weights. context: prompt and reply fit in
    this many tokens. stop_ids: tokens that end a reply in addition to those that model and tokenizer name.
    """

    def __init__(
        self,
        model: CausalModel,
        tokenizer: Any,
        *,
        slots: int = 32,
        live: bool = True,
        owned: bool = False,
        prefill_tokens: int = 2048,
        dtype: torch.dtype | None = None,
        stop_ids: Iterable[int] = (),
    ) -> None:
        base: Any = unwrap(model)
        weight = base.get_input_embeddings().weight
        self.context = context_limit(base.config.get_text_config())
        self.stop_ids = stop_ids_of(base, tokenizer) | frozenset(stop_ids)
        self.slots = slots
        self.tokenizer = tokenizer
        self._device = weight.device
        written_out = supports_inference(model)
        dtype = dtype if dtype and written_out else weight.dtype
        self._cache = SlotCache(slots, min(self.context, 64), device=weight.device, dtype=dtype)
        self._forward: EngineForward
        if written_out:
            self._forward = LlamaForward(model, self._cache, self.context, owned=owned and not live)
            if not live:
                self._forward.release()
        else:
            self._forward = GeneralForward(model, self._cache)
        self._live = live
        self._dropped = False
        self._prefill_tokens = prefill_tokens
        self._decode_text = token_decoder(tokenizer)
        self._waiting: deque[Running] = deque()
        self._running: list[Running | None] = []  # by slot; None if one has left in this step
        self._rows: Rows | None = None
        self._vocabulary = weight.shape[0]

    # --------------------------------------------------------------------------------------------------------- offline

    def generate(self, requests: Sequence[EngineRequest]) -> list[Completion]:
        """Replies to all requests, in their order. Raises PromptTooLong before anything is generated."""
        completions = dict(self.stream(requests))
        return [completions[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[EngineRequest]) -> Iterator[tuple[int, Completion]]:
        """(index, reply) as replies end. Prompts are read longest first, so that those read together are alike in
        length."""
        if self.busy:
            raise RuntimeError("the engine is at work on other requests")
        copies = [replace(request) for request in requests]  # the same object may be asked for twice
        for request in copies:
            self._check(request)
        if self._live:
            self._load()
        places = {id(request): i for i, request in enumerate(copies)}
        try:
            for request in sorted(copies, key=lambda request: (-len(request.prompt), request.prompt)):
                self.submit(request)
            while self.busy:
                for request, completion in self.step():
                    yield places[id(request)], completion
        finally:
            self._forget()
            if self._live:  # what comes between two calls, an update, needs the memory
                self._forward.drop()
                self._cache.clear()
                self._dropped = True

    # ----------------------------------------------------------------------------------------------------- step by step

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def waiting(self) -> int:
        """Requests that have no slot yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        return len(self._running)

    def submit(self, request: EngineRequest) -> None:
        """Queue a request. Raises PromptTooLong, or TrainingError for token ids that the model does not have."""
        self._check(request)
        if self._dropped:
            self._load()
        params = request.params
        room = min(params.max_new_tokens, self.context - len(request.prompt))
        watched = request.on_delta is not None or params.stop
        self._waiting.append(
            Running(
                request=request,
                room=room,
                stop_ids=self.stop_ids if params.stop_ids is None else params.stop_ids,
                detokenizer=Detokenizer(self.tokenizer) if watched else None,
                stops=StopStrings(params.stop),
                numbers=uniforms(params.seed, room if params.temperature >= GREEDY_BELOW else 0),
            )
        )

    def cancel(self, request: EngineRequest) -> None:
        """End a request at the next step, with what it has. Nothing happens where it has ended already."""
        for running in (*self._waiting, *self._running):
            if running is not None and running.request is request:
                running.finish = "cancelled"

    def step(self) -> list[tuple[EngineRequest, Completion]]:
        """Give free slots to waiting requests, move all running ones on by a token, and return those that ended."""
        try:
            with torch.inference_mode(isinstance(self._forward, LlamaForward)):
                done = self._leave()
                if self._waiting:
                    self._admit()
                    done += self._leave()
                self._close_gaps()
                if self._running:
                    self._decode()
                    done += self._leave()
        except BaseException:
            self._forget()
            raise
        return done

    def _load(self) -> None:
        self._forward.load()
        self._dropped = False

    def _check(self, request: EngineRequest) -> None:
        if not request.prompt:
            raise TrainingError("the prompt is empty: there is nothing to go on from", code="prompt_empty")
        if len(request.prompt) >= self.context:
            raise PromptTooLong(len(request.prompt), self.context)
        if min(request.prompt) < 0 or max(request.prompt) >= self._vocabulary:
            raise TrainingError(
                f"the prompt has token ids outside the model's vocabulary of {self._vocabulary}: "
                "the tokenizer is not this model's",
                code="token_unknown",
            )

    def _admit(self) -> None:
        """Read the next waiting prompts into free slots, those of like length together."""
        free = [slot for slot, running in enumerate(self._running) if running is None]
        free += range(len(self._running), self.slots)
        admitted: list[Running] = []
        tokens = 0
        while self._waiting and len(admitted) < len(free):
            tokens += len(self._waiting[0].request.prompt)
            if admitted and tokens > self._prefill_tokens:
                break
            admitted.append(self._waiting.popleft())
        if not admitted:
            return
        self._reserve(max(len(running.request.prompt) + running.room for running in admitted))
        self._rows = None
        slots = iter(free)
        for group in alike(admitted):
            places = [next(slots) for _ in group]
            self._running += [None] * (max(places) + 1 - len(self._running))
            for slot, running in zip(places, group, strict=True):
                self._running[slot] = running
            self._accept(group, self._prefill(group, places), Rows.of(group, self._device))

    def _prefill(self, group: list[Running], slots: list[int]) -> Tensor:
        """Logits [m, V] after the prompts of `group`; requests with the same prompt share one reading."""
        rows: dict[tuple[int, ...], int] = {}
        row = [rows.setdefault(tuple(running.request.prompt), len(rows)) for running in group]
        longest = max(map(len, rows))
        prompts = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in rows], device=self._device)
        lengths = torch.tensor([len(prompt) for prompt in rows], device=self._device)
        at, which = torch.tensor(slots, device=self._device), torch.tensor(row, device=self._device)
        return self._forward.prefill(prompts, lengths, at, which)[which]

    def _decode(self) -> None:
        running = [row for row in self._running if row is not None]
        if self._rows is None:
            self._rows = Rows.of(running, self._device)
        lengths = [row.length for row in running]
        idle = min(-len(running) % FEW, self.slots - len(running)) if len(running) > FEW else 0
        tokens = torch.tensor([*(row.tokens[-1] for row in running), *[0] * idle], device=self._device)
        positions = torch.tensor([*(length - 1 for length in lengths), *[0] * idle], device=self._device)
        logits = self._forward.decode(tokens, positions, max(lengths))[: len(running)]
        self._accept(running, logits, self._rows)

    def _accept(self, running: list[Running], logits: Tensor, rows: Rows) -> None:
        """Draw the next token of each row of logits [n, V]."""
        numbers = [float(row.numbers[len(row.tokens)]) if len(row.numbers) else 0.0 for row in running]
        uniform = torch.tensor(numbers, device=self._device)
        tokens, logprobs, normalizer = drawn(logits, rows.temperature, rows.top_k, rows.top_p, uniform, rows.cut)
        if not bool(normalizer.isfinite().all()):
            self._cache.clear()
            raise TrainingError(NOT_FINITE, code="not_finite")
        if rows.tempered is not None:
            logprobs = torch.where(rows.tempered, tempered_logprobs(logits, rows.temperature, tokens), logprobs)
        if rows.alternatives:
            values, ids = (logits.float() - normalizer[:, None]).topk(min(rows.alternatives, logits.shape[-1]))
            for row, best, names in zip(running, values.tolist(), ids.tolist(), strict=True):
                row.top.append(dict(list(zip(names, best, strict=True))[: row.request.params.top_logprobs]))
        for row, token, logprob in zip(running, tokens.tolist(), logprobs.tolist(), strict=True):
            row.push(token, logprob)

    def _leave(self) -> list[tuple[EngineRequest, Completion]]:
        """Take out what has ended."""
        done = [running for running in (*self._waiting, *self._running) if running is not None and running.finish]
        if not done:
            return []
        self._rows = None
        self._waiting = deque(running for running in self._waiting if not running.finish)
        self._running = [None if running is None or running.finish else running for running in self._running]
        self._trim()
        return [(running.request, self._complete(running)) for running in done]

    def _close_gaps(self) -> None:
        """Move the last sequences into slots that nobody took, so that the running ones are the first n."""
        for slot in range(len(self._running)):
            if slot < len(self._running) and self._running[slot] is None and (last_running := self._running.pop()):
                self._cache.move(len(self._running), slot, last_running.length)
                self._running[slot] = last_running
                self._trim()

    def _trim(self) -> None:
        while self._running and self._running[-1] is None:
            self._running.pop()

    def _complete(self, running: Running) -> Completion:
        if running.detokenizer is not None:
            text = "".join(running.text)
        else:
            ended = running.tokens and running.tokens[-1] in running.stop_ids
            text = self._decode_text(running.tokens[:-1] if ended else running.tokens)
        return Completion(running.tokens, running.logprobs, text, running.finish or "cancelled", running.top)

    def _reserve(self, length: int) -> None:
        self._cache.reserve(min(self.context, 1 << (length - 1).bit_length()))

    def _forget(self) -> None:
        self._waiting.clear()
        self._running.clear()
        self._rows = None


def context_limit(config: Any) -> int:
    """Most tokens of a sequence; models with a sliding window are used up to where it would begin to slide."""
    context: int = getattr(config, "max_position_embeddings", 1 << 20)
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window and (kinds is None or "sliding_attention" in kinds):
        return min(context, window)
    return context


def stop_ids_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """End-of-text ids by the generation config, the config and the tokenizer."""
    named = [
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        getattr(model.config.get_text_config(), "eos_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
    ]
    return frozenset(i for ids in named if ids is not None for i in (ids if isinstance(ids, list) else [ids]))
