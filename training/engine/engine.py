"""The engine: requests in, replies out, one token a sequence a step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from training.contract import TrainingError
from training.engine.batch import Batch
from training.engine.detokenizer import Detokenizer, StopStrings, token_decoder
from training.engine.engine_request import Completion, EngineRequest, PromptTooLong, uniforms
from training.engine.kv_budget import KVBudget
from training.engine.kv_cache import PAGE, PagedCache, Span, Written, blocks_of
from training.engine.llama_inference import LlamaForward, int8_obstacle, supports_inference
from training.engine.sampling import drawn, tempered_logprobs
from training.engine.sequence import GREEDY_BELOW, Rows, Running, alike
from training.engine.transformers_forward import GeneralForward
from training.engine.weights import frozen_module
from training.kernels.ops import Places
from training.models.loading import CausalModel, unwrap

FEW = 8  # above this many replies idle rows are moved on as well, up to a multiple of it: each shape wants its own
# kernels. Below, every row costs: a lone reply padded to 8 rows takes twice the time of one that is not.
NOT_FINITE = "the model gives numbers that are not finite (NaN): its weights are damaged or its training diverged"


class EngineForward(Protocol):
    def load(self) -> None: ...
    def drop(self) -> None: ...
    def prefill(self, prompts: Tensor, lengths: Tensor, written: Written) -> Tensor: ...
    def decode(self, tokens: Tensor, places: Places) -> Tensor: ...


class Engine:
    """Generates replies. One thread at a time may use it.

    model: a causal language model of transformers, PEFT-wrapped or not. live: its weights change between calls of
    `generate`, so they are read again each time; otherwise they are read once. owned: nobody else uses the model, which
    may be taken apart to have its weights in memory once. slots: most replies generated at once.
    prefill_tokens: most prompt tokens read between two decoding steps. dtype: to compute in, where the model's
    architecture is written out here; otherwise, and by default, that of its weights. context: prompt and reply fit in
    this many tokens. stop_ids: tokens that end a reply in addition to those that model and tokenizer name. memory: what
    keys and values may take, with the other engines that have the same; by default a budget of its own. Where it is
    short, replies wait for each other. int8: matrices are kept in 8 bits and computing is in
    float32; the weights must be final (not live), and `int8_obstacle` of the model empty.
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
        memory: KVBudget | None = None,
        int8: bool = False,
    ) -> None:
        if int8 and (live or (obstacle := int8_obstacle(model))):
            raise ValueError("weights that change cannot be kept in 8 bits" if live else obstacle)
        base: Any = unwrap(model)
        weight = frozen_module(base.get_input_embeddings()).weight
        self._model_context = context_limit(base.config.get_text_config())
        self.stop_ids = stop_ids_of(base, tokenizer) | frozenset(stop_ids)
        self.slots = slots
        self.tokenizer = tokenizer
        self._device = weight.device
        written_out = supports_inference(model)
        self.int8 = int8
        dtype = torch.float32 if int8 else dtype if dtype and written_out else weight.dtype
        self._own_memory = memory is None
        self.memory = memory or KVBudget(weight.device)
        self._cache = PagedCache(
            self.memory, slots * (blocks_of(self._model_context) + 1) * PAGE, device=weight.device, dtype=dtype
        )
        self._batch = Batch(self._cache, slots, weight.device)
        self._forward: EngineForward
        if written_out:
            self._forward = LlamaForward(model, self._cache, self._model_context, owned=owned and not live, int8=int8)
            if not live:
                self._forward.release()
        else:
            self._forward = GeneralForward(model, self._cache)
        self._live = live
        self._dropped = False
        self._prefill_tokens = prefill_tokens
        self._decode_text = token_decoder(tokenizer)
        self._waiting: deque[Running] = deque()
        self._rows: Rows | None = None
        self._vocabulary = weight.shape[0]

    @property
    def context(self) -> int:
        """Most tokens of prompt and reply: of the model's, what the memory for keys and values holds."""
        return self._model_context if self._own_memory else min(self._model_context, self._memory_tokens)

    @property
    def _memory_tokens(self) -> int:
        """What fits beside a page for rows that belong to nobody."""
        return max(0, self.memory.limit // self._cache.page_bytes - 1) * PAGE

    def use_memory(self, memory: KVBudget) -> None:
        """Take the memory for keys and values from `memory` from now on. Nothing may be under way."""
        self._cache.clear()
        self._own_memory, self.memory, self._cache.memory = False, memory, memory
        memory.join(self._cache)

    def check_length(self, tokens: int) -> None:
        """Raises PromptTooLong if a prompt of that many tokens leaves no room for a reply."""
        if tokens >= self.context:
            raise PromptTooLong(tokens, self.context, self._model_context)

    # --------------------------------------------------------------------------------------------------------- offline

    def generate(
        self, requests: Sequence[EngineRequest], ended: Callable[[int], None] = lambda _: None
    ) -> list[Completion]:
        """Replies to all requests, in their order. `ended` is told how many there are so far. Raises PromptTooLong
        before anything is generated."""
        completions: dict[int, Completion] = {}
        for i, completion in self.stream(requests):
            completions[i] = completion
            ended(len(completions))
        return [completions[i] for i in range(len(requests))]

    def stream(
        self, requests: Sequence[EngineRequest], stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, Completion]]:
        """(index, reply) as replies end; those that have not ended when `stopping` turns true are given up. Prompts are
        read longest first, so that those read together are alike in length."""
        if self.busy:
            raise RuntimeError("the engine is at work on other requests")
        copies = [replace(request) for request in requests]  # the same object may be asked for twice
        for request in copies:
            self._check(request)
        if self._live:
            self._load()
        if self._own_memory:
            longest = max((len(request.prompt) + self._room(request) for request in copies), default=0)
            self.memory.measure(at_least=(blocks_of(longest) + 1) * self._cache.page_bytes)
        places = {id(request): i for i, request in enumerate(copies)}
        try:
            for request in sorted(copies, key=lambda request: (-len(request.prompt), request.prompt)):
                self.submit(request)
            while self.busy and not stopping():
                for request, completion in self.step():
                    yield places[id(request)], completion
        finally:
            self._forget()
            if self._live:  # what comes between two calls, an update, needs the memory
                self._forward.drop()
                self._dropped = True

    # ----------------------------------------------------------------------------------------------------- step by step

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._batch.running)

    @property
    def waiting(self) -> int:
        """Requests that have not begun, or wait to go on."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that get a token in each step."""
        return len(self._batch.running)

    def submit(self, request: EngineRequest) -> None:
        """Queue a request. Raises PromptTooLong, or TrainingError for token ids that the model does not have."""
        self._check(request)
        if self._dropped:
            self._load()
        params = request.params
        room = self._room(request)
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
        for running in (*self._waiting, *self._batch.running):
            if running.request is request:
                running.finish = "cancelled"

    def step(self) -> list[tuple[EngineRequest, Completion]]:
        """Begin waiting requests where there is room, move all running ones on by a token, and return those that
        ended."""
        try:
            with torch.inference_mode(isinstance(self._forward, LlamaForward)):
                done = self._leave()
                if self._waiting:
                    self._admit()
                    done += self._leave()
                if preempted := self._batch.make_room():
                    self._waiting.extendleft(reversed(preempted))
                    self._rows = None
                    done += self._leave()
                if self._batch.running:
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
        self.check_length(len(request.prompt))
        if min(request.prompt) < 0 or max(request.prompt) >= self._vocabulary:
            raise TrainingError(
                f"the prompt has token ids outside the model's vocabulary of {self._vocabulary}: "
                "the tokenizer is not this model's",
                code="token_unknown",
            )

    def _room(self, request: EngineRequest) -> int:
        """Most tokens that a request may produce."""
        return min(request.params.max_new_tokens, self.context - len(request.prompt))

    def _admit(self) -> None:
        """Begin the next waiting requests, and read the prompts of like length together."""
        admitted = self._batch.admit(self._waiting, self._prefill_tokens)
        if not admitted:
            return
        self._rows = None
        for group in alike(admitted):
            self._accept(group, self._prefill(group), Rows.of(group, self._device))

    def _prefill(self, group: list[Running]) -> Tensor:
        """Logits [m, V] after the tokens of `group`; requests with the same prompt share one reading."""
        rows: dict[tuple[int, ...], int] = {}
        row = [rows.setdefault(tuple(running.ids), len(rows)) for running in group]
        longest = max(map(len, rows))
        prompts = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in rows], device=self._device)
        lengths = torch.tensor([len(prompt) for prompt in rows], device=self._device)
        spans = [Span(i, one.filled, one.length, one.pages) for i, one in zip(row, group, strict=True)]
        logits = self._forward.prefill(prompts, lengths, Written.of(spans, self._device))
        return logits[torch.tensor(row, device=self._device)]

    def _decode(self) -> None:
        running = self._batch.running
        if self._rows is None:
            self._rows = Rows.of(running, self._device)
        pads = len(running) > FEW and not self.int8
        places = self._batch.places(min(-len(running) % FEW, self.slots - len(running)) if pads else 0)
        idle = len(places.positions) - len(running)
        tokens = torch.tensor([*(row.tokens[-1] for row in running), *[0] * idle], device=self._device)
        self._accept(running, self._forward.decode(tokens, places)[: len(running)], self._rows)

    def _accept(self, running: list[Running], logits: Tensor, rows: Rows) -> None:
        """Draw the next token of each row of logits [n, V]."""
        numbers = [float(row.numbers[len(row.tokens)]) if len(row.numbers) else 0.0 for row in running]
        uniform = torch.tensor(numbers, device=self._device)
        tokens, logprobs, normalizer = drawn(logits, rows.draw, uniform)
        if rows.tempered is not None:
            tempered = tempered_logprobs(logits, rows.draw.temperature, tokens)
            logprobs = torch.where(rows.tempered, tempered, logprobs)
        # All that the host wants to know of this step, in one piece: it waits for the device once.
        chosen, of_chosen, sums = torch.stack([tokens.double(), logprobs.double(), normalizer.double()]).tolist()
        if not all(map(math.isfinite, sums)):
            raise TrainingError(NOT_FINITE, code="not_finite")
        if rows.alternatives:
            values, ids = (logits.float() - normalizer[:, None]).topk(min(rows.alternatives, logits.shape[-1]))
            for row, best, names in zip(running, values.tolist(), ids.tolist(), strict=True):
                row.top.append(dict(list(zip(names, best, strict=True))[: row.request.params.top_logprobs]))
        for row, token, logprob in zip(running, map(int, chosen), of_chosen, strict=True):
            row.push(token, logprob)

    def _leave(self) -> list[tuple[EngineRequest, Completion]]:
        """Take out what has ended."""
        done = [running for running in (*self._waiting, *self._batch.running) if running.finish]
        if not done:
            return []
        self._rows = None
        self._waiting = deque(running for running in self._waiting if not running.finish)
        for running in done:
            if running.pages:
                self._batch.remove(running)
        self._batch.shrink()
        if not self._waiting:
            self.memory.leave_line(self._batch)
        return [(running.request, self._complete(running)) for running in done]

    def _complete(self, running: Running) -> Completion:
        if running.detokenizer is not None:
            text = "".join(running.text)
        else:
            ended = running.tokens and running.tokens[-1] in running.stop_ids
            text = self._decode_text(running.tokens[:-1] if ended else running.tokens)
        return Completion(running.tokens, running.logprobs, text, running.finish or "cancelled", running.top)

    def _forget(self) -> None:
        self._waiting.clear()
        self._batch.clear()
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
