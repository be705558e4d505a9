"""Causal attention of packed sequences in bfloat16 on Intel AMX. README.md says why, and how to leave it out."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int64
from typing import Any

import torch
from torch import Tensor

from training.kernels.native import Library, library

Blocks = list[tuple[int, int]]  # (n, L): n sequences of L tokens, one after another, which make up T


def amx_kernels(x: Tensor) -> Library | None:
    """What computes `amx_attention_forward` for activations like x, or None: attention.py then computes by torch."""
    compiled = library(x.dtype) if x.dtype == torch.bfloat16 and x.is_cpu else None
    return compiled if compiled is not None and compiled.has_amx else None


def amx_attention_forward(
    compiled: Library, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float
) -> tuple[Tensor, Tensor]:
    """Causal attention of each of the packed sequences to itself: (T, heads, d), contiguous, and the log-sums (heads,
    T).

    query (T, heads, d), key and value (T, kv_heads, d), the numbers of a head side by side. Raises ValueError for
    others.
    """
    attended = query.new_empty(query.shape)
    log_sums = torch.empty(query.shape[1], len(query))
    _call(compiled, "attention_forward", [query, key, value, attended], blocks, scale, log_sums)
    return attended, log_sums


def amx_attention_backward(
    compiled: Library, saved: Sequence[Tensor], grad: Tensor, into: Sequence[Tensor], blocks: Blocks, scale: float
) -> None:
    """Through `amx_attention_forward`, as Dao 2023 (arXiv:2307.08691) does it: `grad` (T, heads, d) is that of what it
    gave, `saved` are query, key, value, and its two results; the gradients of the first three are written to `into`."""
    *views, log_sums = saved
    _call(compiled, "attention_backward", [*views, grad, *into], blocks, scale, log_sums)


def _call(compiled: Library, name: str, views: list[Tensor], blocks: Blocks, scale: float, log_sums: Tensor) -> None:
    query, key = views[:2]
    for x in views:
        check_view(x, query, key)
    if sum(n * length for n, length in blocks) != len(query):
        raise ValueError("the blocks do not make up the row")
    addresses = [number for x in views for number in (x.data_ptr(), x.stride(0), x.stride(1))]
    sizes = [number for block in blocks for number in block]
    compiled.call(
        name, _array(addresses), _array(sizes), len(blocks), *query.shape[:2], *key.shape[1:], scale, log_sums,
    )  # fmt: skip


def check_view(x: Tensor, query: Tensor, key: Tensor) -> None:
    if x.dtype != torch.bfloat16 or not x.is_cpu:
        raise ValueError(f"attention on AMX takes bfloat16 on the CPU, got {x.dtype} on {x.device}")
    if x.shape not in (query.shape, key.shape) or key.shape[::2] != query.shape[::2]:
        raise ValueError(f"a tensor of {tuple(x.shape)} goes with neither queries {tuple(query.shape)} nor keys")
    if x.stride(-1) != 1:
        raise ValueError("a head's numbers do not lie side by side")


def _array(numbers: list[int]) -> Any:
    return (c_int64 * len(numbers))(*numbers)
