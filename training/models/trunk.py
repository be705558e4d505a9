"""A language model up to its last hidden states, computed on packed sequences."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from training.data.packing import SEQUENCE, Packed, moved, pack
from training.kernels.attention import varlen_attention
from training.kernels.prefixes import LayOut
from training.models import llama_training
from training.models.checkpointing import attention_of
from training.run.run import Run

VARLEN: Final = "varlen_attention"
# Of the largest number: more than rounding is another computation. In bfloat16 two orders of the same sums differ by up
# to 3e-2; attention to other tokens, by far more than the bound.
TOLERANCES: Final = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
TOLERANCE_FP32: Final = 1e-3

ALL_ATTENTION_FUNCTIONS.register(VARLEN, varlen_attention)


def use_varlen_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    return attention_of(model.config, VARLEN)


@dataclass
class Trunk:
    """A language model up to its last hidden states.

    The Llama family is computed by training/models/llama_training.py where it can be, other models by their own modules
    on the packed row. Models whose attention does not look at all earlier tokens alike, or does not go through
    transformers' attention interface, compute on padded sequences; computing a few tokens both ways tells which it is.
    """

    model: PreTrainedModel  # the base model, without its output matrix

    def __post_init__(self) -> None:
        self.padding_reason = window_of(self.model.config.get_text_config()) or self._disagreement()
        self.packs = not self.padding_reason

    def tokens(self, packed: Packed) -> int:
        """How many tokens a pass computes, padding included."""
        return packed.computed if self.packs else len(packed.lengths) * int(packed.lengths.max())

    def hidden(self, packed: Packed) -> Tensor:
        """Last hidden states (T, H) of the row; only those at the sequences' own tokens mean anything."""
        return self._packed(packed) if self.packs else self._padded(packed)

    def _packed(self, packed: Packed) -> Tensor:
        if packed.shared is None:
            return self._computed(packed)
        computed = packed.shared.computed
        states = self._computed(packed._replace(ids=packed.ids[:, computed], positions=packed.positions[:, computed]))
        apply: Any = LayOut.apply
        whole: Tensor = apply(states, packed.shared)
        return whole

    def _computed(self, packed: Packed) -> Tensor:
        """Hidden states of `ids` at `positions`, which are all of the row or those that are computed."""
        if llama_training.supports_training(self.model):
            return llama_training.hidden(self.model, packed)
        with use_varlen_attention(self.model):
            output = self.model(
                input_ids=packed.ids, position_ids=packed.positions, use_cache=False,
                blocks=packed.blocks, offsets=packed.offsets, shared=packed.shared,
            )  # fmt: skip
        states: Tensor = output.last_hidden_state[0]
        return states

    def _padded(self, packed: Packed) -> Tensor:
        places = torch.arange(int(packed.lengths.max()), device=packed.lengths.device)
        within = places < packed.lengths[:, None]
        flat = (packed.starts[:, None] + places)[within]
        ids = packed.ids.new_zeros(within.shape)
        ids[within] = packed.ids[0, flat]
        hidden: Tensor = self.model(input_ids=ids, use_cache=False).last_hidden_state
        row = hidden.new_zeros(packed.ids.shape[1], hidden.shape[2])
        return row.index_put((flat,), hidden[within])

    @torch.no_grad()
    def _disagreement(self) -> str:
        """Why sequences cannot be packed, found out by computing a few tokens both ways; empty if they can."""
        kind = self.model.config.get_text_config().model_type
        embedding = self.model.get_input_embeddings()
        draw = np.random.default_rng(0)
        first, second, third = (draw.integers(0, embedding.num_embeddings, n) for n in (5, 9, 2))
        second[:3] = first[:3]  # to be computed once
        packed = moved(pack([first, second, third], 0, SEQUENCE), embedding.weight.device)
        training = self.model.training
        self.model.eval()
        try:
            with autocast_of(embedding.weight):
                padded = self._padded(packed)
            try:
                with autocast_of(embedding.weight):
                    packed_states = self._packed(packed)
            except (AttributeError, TypeError, ValueError, RuntimeError):  # as MPT's, which reads the mask there is not
                return f"{kind} models cannot compute on packed sequences"
        finally:
            self.model.train(training)
        starts, lengths = packed.starts.tolist(), packed.lengths.tolist()
        real = [position for start, n in zip(starts, lengths, strict=True) for position in range(start, start + n)]
        same = computes_the_same(packed_states[real], padded[real])
        return "" if same else f"{kind} models let packed sequences see each other"


def autocast_of(weight: Tensor) -> AbstractContextManager[Any]:
    """As stages compute with weights in bfloat16, some of which an architecture may keep in float32, as Mamba's do."""
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=weight.dtype is torch.bfloat16)


def computes_the_same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two ways to compute differ by rounding in the coarser of their dtypes. NaN goes with NaN."""
    allowed = max(TOLERANCES.get(x.dtype, TOLERANCE_FP32) for x in (ours, theirs))
    bound = allowed * float(theirs.abs().nan_to_num(0.0, 0.0).max())
    return torch.allclose(ours.float(), theirs.float(), atol=bound, rtol=0.0, equal_nan=True)


def window_of(config: Any) -> str:
    """What its layers look back to, where that is not all earlier tokens, which a few would not show; else empty."""
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        return f"layers of this {config.model_type} model look back {window:,} tokens only"
    kinds = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    return f"this {config.model_type} model has layers of {' and '.join(kinds)}" if kinds else ""


def tell_padding(run: Run[Any], *trunks: Trunk) -> None:
    """Log why passes are padded, if they are."""
    for reason in dict.fromkeys(trunk.padding_reason for trunk in trunks):
        if reason:
            run.warn(
                f"passes are padded to the longest of their sequences, for {reason}; they take fewer of them for that, "
                "and the run takes longer"
            )
