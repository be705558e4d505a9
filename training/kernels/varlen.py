"""torch's variable-length attention on a GPU (torch.nn.attention.varlen; FlashAttention-2, Dao 2023, arXiv:2307.08691):
one launch for all sequences of a packed row.

Where a CPU computes the way a GPU is used (TUTELAGE_KERNELS=as-gpu), an operation with the same arguments and demands
takes its place. T is the length of the packed row, d the width of a head, S the number of sequences.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from training.kernels.native import as_on_gpu

DTYPES: Final = (torch.bfloat16, torch.float16)
MAX_HEAD: Final = 256
MIN_CAPABILITY: Final = (8, 0)  # Ampere
# On these there is no backward pass for heads of more than 192 and at most 224 numbers.
CONSUMER_CAPABILITIES: Final = ((8, 6), (8, 9), (12, 0), (12, 1))


def supports_varlen(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the kernel takes such tensors (T, heads or kv_heads, d), on this device."""
    device, width = device_type(query), query.shape[-1]
    if not as_on_gpu(device) or query.dtype not in DTYPES or value.shape[-1] != width:
        return False
    if width % 8 or width > MAX_HEAD or query.shape[1] % key.shape[1]:
        return False
    if device != "cuda":
        return True
    capability = torch.cuda.get_device_capability(query.device)
    return capability >= MIN_CAPABILITY and not (192 < width <= 224 and capability in CONSUMER_CAPABILITIES)


def device_type(x: Tensor) -> str:
    return x.device.type


def causal_varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int, scale: float
) -> Tensor:
    """Causal attention of each sequence to itself, (T, heads, d), with its gradient.

    query (T, heads, d), key and value (T, kv_heads, d), offsets (S + 1,) int32, `longest` of the sequences in tokens.
    """
    query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
    if query.device.type == "cpu":
        attended: Tensor = reference_varlen(query, key, value, offsets, longest, scale)
        return attended
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - it takes two seconds, which only GPUs need

    grouped = key.shape[1] != query.shape[1]
    return varlen_attn(  # type: ignore[return-value]  # a pair only where more is asked for
        query, key, value, offsets, offsets, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=grouped
    )


# ------------------------------------------------------------------------------------------------ the same on a CPU


@torch.library.custom_op("tutelage::varlen_attention", mutates_args=())
def reference_varlen(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int, scale: float) -> Tensor:
    """What the kernel computes, sequence by sequence. Raises ValueError for what the kernel does not take."""
    check_arguments(query, key, value, offsets, longest)
    attended = torch.empty_like(query, memory_format=torch.contiguous_format)
    for begin, end in pairwise(offsets.tolist()):
        q, k, v = (heads_first(x[begin:end], query.shape[1]) for x in (query, key, value))
        attended[begin:end] = torch.bmm(causal_weights(q, k, scale), v).transpose(0, 1)
    return attended


@torch.library.custom_op("tutelage::varlen_attention_backward", mutates_args=())
def reference_varlen_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value))
    for begin, end in pairwise(offsets.tolist()):
        g, q, k, v = (heads_first(x[begin:end], query.shape[1]) for x in (grad, query, key, value))
        weights = causal_weights(q, k, scale)
        change = torch.bmm(g, v.transpose(1, 2))
        change = weights * (change - (change * weights).sum(-1, keepdim=True)) * scale
        changes = torch.bmm(change, k), torch.bmm(change.transpose(1, 2), q), torch.bmm(weights.transpose(1, 2), g)
        for gradient, wide in zip(gradients, changes, strict=True):
            gradient[begin:end] = wide.unflatten(0, (gradient.shape[1], -1)).sum(1).transpose(0, 1)
    query_grad, key_grad, value_grad = gradients
    return query_grad, key_grad, value_grad


def heads_first(x: Tensor, heads: int) -> Tensor:
    """(L, heads or kv_heads, d) -> (heads, L, d), float32, each key as often as queries share it."""
    return x.float().transpose(0, 1).repeat_interleave(heads // x.shape[1], dim=0)


def causal_weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """(heads, L, d) twice -> (heads, L, L)"""
    scores = torch.bmm(query, key.transpose(1, 2)) * scale
    later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf).softmax(-1)


def check_arguments(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int) -> None:
    """Raises ValueError."""
    lengths = offsets.diff()
    if not supports_varlen(query, key, value) or {query.dtype} != {key.dtype, value.dtype} or key.shape != value.shape:
        raise ValueError("varlen attention does not take tensors of this dtype or shape")
    if offsets.dtype != torch.int32 or offsets.device != query.device or not offsets.is_contiguous():
        raise ValueError("the offsets must be int32, contiguous, and on the device")
    if int(offsets[0]) != 0 or int(offsets[-1]) != len(query) or int(lengths.min()) < 1 or int(lengths.max()) > longest:
        raise ValueError("the offsets do not make up the row")


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: object) -> None:  # noqa: ARG001
    *tensors, _, scale = inputs
    ctx.save_for_backward(*tensors)  # type: ignore[arg-type]  # all but the last two are tensors
    ctx.scale = scale  # type: ignore[attr-defined]


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, offsets = ctx.saved_tensors  # type: ignore[attr-defined]
    gradients = reference_varlen_backward(grad, query, key, value, offsets, ctx.scale)  # type: ignore[attr-defined]
    return (*gradients, None, None, None)


reference_varlen.register_autograd(_backward, setup_context=_keep)
