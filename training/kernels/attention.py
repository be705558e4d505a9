"""Causal attention of packed sequences, each to itself, with its gradient.

T is the length of the packed row, C the number of its tokens that are computed: fewer, where sequences begin with the
same ones (prefixes.py), which are laid out in the whole row for attention alone. d is the width of a head.

On a CPU with AMX both passes are kernels of ours in bf16 (amx/). On others, and in float32, the forward pass is torch's
flash kernel. Its backward kernel takes two to four times as long in bf16 as the matrix products it is made of while
sequences are short, so there these are written out. On GPUs it is one launch of torch's variable-length kernel
(varlen.py) or, where that does not take the dtype or the heads, one of torch's attention for each block of sequences of
one length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from training.kernels import amx, ops
from training.kernels.amx import Blocks
from training.kernels.native import as_on_gpu
from training.kernels.prefixes import LayOut, SharedPrefixes, at_first, laid_out, summed
from training.kernels.varlen import causal_varlen_attention, supports_varlen

OTHERS: Final = ("softcap", "s_aux", "sliding_window")  # Gemma 2's capped scores, sinks, windows
WEIGHTS: Final = 1 << 20  # attention weights held at once in the backward pass, which the cache has room for
LONG: Final = {torch.bfloat16: 768}  # sequences from which torch's backward kernel is faster


def varlen_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float, shared: SharedPrefixes | None = None
) -> tuple[Tensor, Tensor]:
    """What each token sees, (C, heads, d), and the log-sums (heads, T), on a CPU; no gradient is recorded.

    query (C, heads, d), key and value (C, kv_heads, d)
    """
    if shared is not None:
        query, key, value = (laid_out(x, shared) for x in (query, key, value))
        attended, log_sums = varlen_attention_forward(query, key, value, blocks, scale)
        return attended.index_select(0, shared.computed), log_sums
    if compiled := amx.amx_kernels(query):
        return amx.amx_attention_forward(compiled, query, key, value, blocks, scale)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    attended, log_sums = query.new_empty(query.shape), torch.empty(query.shape[:2])
    for block, *tensors in cut(blocks, attended, log_sums, query, key, value):
        out, sums, q, k, v = (tensor.unflatten(0, block).transpose(1, 2) for tensor in tensors)
        block_out, of_one = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale)
        out.copy_(block_out)
        sums.copy_(of_one)
    return attended, log_sums.t()


def varlen_attention_backward(
    grad: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    into: tuple[Tensor, Tensor, Tensor],
    blocks: Blocks,
    scale: float,
    shared: SharedPrefixes | None = None,
) -> None:
    """Write the gradients of query, key and value to `into`, for the gradient (C, heads, d) of what the forward gave.

    saved: query, key, value, and the two results of `varlen_attention_forward`.
    """
    query, key, value, attended, log_sums = saved
    if shared is not None:
        query, key, value, attended = (laid_out(x, shared) for x in saved[:4])
        whole = query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
        rows = query, key, value, attended, log_sums
        varlen_attention_backward(at_first(grad, shared), rows, whole, blocks, scale)
        for target, gradient in zip(into, whole, strict=True):
            target.copy_(summed(gradient, shared))
        return
    if compiled := amx.amx_kernels(query):
        amx.amx_attention_backward(compiled, saved, grad, into, blocks, scale)
        return
    for block, *tensors in cut(blocks, grad, query, key, value, attended, log_sums.t(), *into):
        g, q, k, v, out, sums, dq, dk, dv = (tensor.unflatten(0, block) for tensor in tensors)
        sums = sums.transpose(1, 2)
        if block[1] >= LONG.get(q.dtype, 0):
            _by_kernel((g, q, k, v, out), sums, (dq, dk, dv), scale)
        else:
            _by_products((g, q, k, v), sums, (dq, dk, dv), scale)


def halves(n: int, max_size: int) -> Iterator[slice]:
    """0 to n in powers of two of at most `max_size`: few sizes, since oneDNN prepares and keeps a kernel for each."""
    begin = 0
    while begin < n:
        size = 1 << min(n - begin, max_size).bit_length() - 1
        yield slice(begin, begin + size)
        begin += size


def cut(blocks: Blocks, *tensors: Tensor) -> Any:
    """Each block with its part of every tensor (T, …)."""
    sizes = [n * width for n, width in blocks]
    return zip(blocks, *(tensor.split(sizes) for tensor in tensors), strict=True)


def _by_kernel(saved: tuple[Tensor, ...], log_sum: Tensor, into: tuple[Tensor, ...], scale: float) -> None:
    """All (n, L, heads or kv_heads, d)."""
    groups = saved[1].shape[2] // saved[2].shape[2]
    wide = [x.repeat_interleave(groups, dim=2) if x.shape[2] < saved[1].shape[2] else x for x in saved]
    g, q, k, v, out = (x.transpose(1, 2) for x in wide)
    gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        g, q, k, v, out, log_sum, 0.0, True, scale=scale
    )
    for target, gradient in zip(into, gradients, strict=True):
        here = gradient.transpose(1, 2)
        if here.shape[2] > target.shape[2]:
            here = here.unflatten(2, (target.shape[2], groups)).sum(3)
        target.copy_(here)


def _by_products(saved: tuple[Tensor, ...], log_sums: Tensor, into: tuple[Tensor, ...], scale: float) -> None:
    """The heads that share a key are rows of one product; the attention weights are computed again, some at a time."""
    g, q, k, v = saved
    n, width, heads, d = q.shape
    shared = k.shape[2]
    groups = heads // shared

    def rows(x: Tensor) -> Tensor:  # (n, L, heads, d) -> (n * kv_heads, groups * L, d)
        grouped: Tensor = x.unflatten(2, (shared, groups)).permute(0, 2, 3, 1, 4)
        return grouped.reshape(n * shared, groups * width, d)

    def columns(x: Tensor) -> Tensor:  # (n, L, kv_heads, d) -> (n * kv_heads, L, d)
        return x.transpose(1, 2).reshape(n * shared, width, d)

    gr, qr, kc, vc = (x.contiguous() for x in (rows(g), rows(q), columns(k), columns(v)))
    sums = log_sums.contiguous().view(n * shared, -1)
    dq, dk, dv = (torch.empty_like(x) for x in (qr, kc, vc))
    for span in halves(n * shared, max(1, WEIGHTS // (groups * width * width))):
        weights = torch.bmm(qr[span], kc[span].transpose(1, 2))
        change = torch.bmm(gr[span], vc[span].transpose(1, 2))
        ops.causal_softmax_backward(weights, change, sums[span], width, scale)
        torch.bmm(weights.transpose(1, 2), gr[span], out=dv[span])
        torch.bmm(change, kc[span], out=dq[span])
        torch.bmm(change.transpose(1, 2), qr[span], out=dk[span])
    into[0].unflatten(2, (shared, groups)).copy_(dq.view(n, shared, groups, width, d).permute(0, 3, 1, 2, 4))
    into[1].copy_(dk.view(n, shared, width, d).transpose(1, 2))
    into[2].copy_(dv.view(n, shared, width, d).transpose(1, 2))


class OnCPU(Function):
    """(C, heads, d), (C, kv_heads, d) twice -> (C, heads, d)"""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float, shared: SharedPrefixes | None
    ) -> Tensor:
        query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
        attended, log_sums = varlen_attention_forward(query, key, value, blocks, scale, shared)
        ctx.save_for_backward(query, key, value, attended, log_sums)
        ctx.settings = blocks, scale, shared
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # to be asked for once: activation checkpointing computes them
        query, key, value = saved[:3]
        into = (query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape))
        varlen_attention_backward(grad.contiguous(), saved, into, *ctx.settings)
        return *into, None, None, None


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 (none is made for this attention)
    *,
    blocks: Blocks,
    offsets: Tensor | None = None,
    shared: SharedPrefixes | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """For transformers' attention interface.

    query (1, heads, C, d), key and value (1, kv_heads, C, d) -> (1, C, heads, d). `offsets`: where the blocks'
    sequences begin, and T, int32 (Packed.offsets). Raises ValueError for what would
    make it another attention and a few tokens of a random model might not show.
    """
    if unknown := [name for name in OTHERS if options.get(name) is not None]:
        raise ValueError(f"attention with {', '.join(unknown)} is not computed on packed sequences")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dropped = dropout if module.training else 0.0
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    rows = [x[0].transpose(0, 1).to(dtype) for x in (query, key, value)]
    if not as_on_gpu(kind) and not dropped and value.shape[-1] == query.shape[-1]:
        return OnCPU.apply(*rows, blocks, scale, shared)[None], None
    if shared is not None:
        rows = [LayOut.apply(x, shared) for x in rows]
    attended = attention_of_row(rows, blocks, offsets, scale, dropped)
    return (attended if shared is None else attended.index_select(0, shared.computed))[None], None


def attention_of_row(
    rows: list[Tensor], blocks: Blocks, offsets: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """query (T, heads, d), key and value (T, kv_heads, d) -> (T, heads, d), by torch's own attention."""
    query, key, value = rows
    if offsets is not None and not dropout and supports_varlen(query, key, value):
        return causal_varlen_attention(query, key, value, offsets, max(width for _, width in blocks), scale)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    outputs = []
    for block, *tensors in cut(blocks, query, key, value):
        q, k, v = (tensor.unflatten(0, block).transpose(1, 2) for tensor in tensors)  # (n, heads, L, d)
        block_out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout)
        outputs.append(block_out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)
