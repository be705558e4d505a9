"""The forward pass of any causal model of transformers, on the engine's own cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from training.contract import TrainingError
from training.engine.kv_cache import PAGE, LayerShape, PagedCache, Written
from training.kernels.ops import Places
from training.models.loading import CausalModel, unwrap

ATTENTION = ("sdpa", "eager")


class _Shapes(Cache):
    """Stands in for transformers' cache to see what each layer would keep."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.by_layer: dict[int, LayerShape] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        key, value = (states.shape[1::2] for states in (key_states, value_states))
        self.by_layer[layer_idx] = LayerShape((key[0], key[1]), (value[0], value[1]))
        return key_states, value_states

    def get_seq_length(self, *_: Any) -> int:
        return 0

    get_query_offset = get_seq_length

    def get_mask_sizes(self, query_length: int, *_: Any) -> tuple[int, int]:
        return query_length, 0


class _Prefill(_Shapes):
    """The same while prompts are read: attention sees the prompt's own keys, we keep a copy."""

    def __init__(self, cache: PagedCache, written: Written) -> None:
        super().__init__()
        self._place = (cache, written)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        cache, written = self._place
        cache.fill(layer_idx, key_states, value_states, written)
        return key_states, value_states


class _Decode(Cache):
    """The same in a decoding step: one new token a sequence, attention sees the sequence so far."""

    def __init__(self, cache: PagedCache, places: Places) -> None:
        super().__init__(layers=[])
        self._place = (cache, places)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        cache, places = self._place
        page, offset = places.written(PAGE)
        keys, values = cache.keys[layer_idx], cache.values[layer_idx]
        keys[page, :, offset] = key_states[:, :, 0].to(cache.dtype)
        values[page, :, offset] = value_states[:, :, 0].to(cache.dtype)
        return places.gathered(keys), places.gathered(values)

    def get_seq_length(self, *_: Any) -> int:
        return self._place[1].longest - 1

    get_query_offset = get_seq_length

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        return self._place[1].longest, 0


class GeneralForward:
    """Calls the model itself, so it works for every architecture that takes position ids and a 4-D mask, or finds
    positions in a 2-D mask as ALiBi does (Press et al. 2022, arXiv:2108.12409), and for any PEFT adapter; the weights
    are the model's own, whatever they are at the time."""

    def __init__(self, model: CausalModel, cache: PagedCache) -> None:
        self.model = model
        self.cache = cache
        base: Any = unwrap(model)
        accepted = inspect.signature(base.forward).parameters
        kinds = set(getattr(base.config.get_text_config(), "layer_types", None) or ()) - {
            "full_attention",
            "sliding_attention",
        }
        self._biased = base.config.model_type == "bloom" or bool(getattr(base.config, "alibi", False))
        if not ("position_ids" in accepted or self._biased) or "past_key_values" not in accepted or kinds:
            obstacle = f"layers of kind {', '.join(sorted(kinds))}" if kinds else "no position ids or key-value cache"
            raise TrainingError(
                f"models of type {base.config.model_type} cannot be generated from here: {obstacle}",
                code="architecture_unsupported",
            )
        if base.config._attn_implementation not in ATTENTION:
            raise TrainingError(
                f"attention {base.config._attn_implementation} is not supported for generation with models of type "
                f"{base.config.model_type}: load the model with attn_implementation='sdpa'",
                code="attention_unsupported",
            )
        self._keep = "logits_to_keep" in accepted
        cache.shapes = self._layer_shapes()

    def load(self) -> None:
        """Nothing to do: the model is asked each time."""

    def drop(self) -> None:
        """Nothing to do, either."""

    def _layer_shapes(self) -> list[LayerShape]:
        """What each layer keeps of a token, seen in a pass over one token."""
        base: Any = unwrap(self.model)
        seen = _Shapes()
        with self._quiet():
            ids = torch.zeros(1, 1, dtype=torch.long, device=base.device)
            self.model(input_ids=ids, past_key_values=seen, use_cache=True)
        return [seen.by_layer.get(i, LayerShape((0, 0), (0, 0))) for i in range(max(seen.by_layer, default=-1) + 1)]

    def prefill(self, prompts: Tensor, lengths: Tensor, written: Written) -> Tensor:
        """Prompts [n, T], padded on the right to T; see LlamaForward.prefill. Returns the last tokens' logits [n,
        V]."""
        n, longest = prompts.shape
        where, last_index = torch.unique(lengths - 1, return_inverse=True)
        places = torch.arange(longest, device=prompts.device)
        if self._biased:
            positions = {"attention_mask": (places < lengths[:, None]).long()}
        else:
            causal = torch.full((longest, longest), float("-inf"), device=prompts.device, dtype=self.cache.dtype)
            positions = {
                "attention_mask": causal.triu_(1).expand(n, 1, longest, longest),
                "position_ids": places.expand(n, longest),
            }
        with self._quiet():
            logits = self.model(
                input_ids=prompts,
                past_key_values=_Prefill(self.cache, written),
                use_cache=True,
                **positions,
                **({"logits_to_keep": where} if self._keep else {}),
            ).logits
        picked = last_index if self._keep else lengths - 1
        last: Tensor = logits[torch.arange(n, device=logits.device), picked].float()
        return last

    def decode(self, tokens: Tensor, places: Places) -> Tensor:
        """The next tokens' logits [n, V]; see LlamaForward.decode."""
        if self._biased:
            where = {"attention_mask": places.visible().long()}
        else:
            where = {"attention_mask": places.bias(self.cache.dtype), "position_ids": places.positions[:, None]}
        with self._quiet():
            cache = _Decode(self.cache, places)
            output = self.model(input_ids=tokens[:, None], past_key_values=cache, use_cache=True, **where)
        logits: Tensor = output.logits[:, -1].float()
        return logits

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """No gradients and no dropout, and every module's training flag as it was before."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True
