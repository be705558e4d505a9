"""Tokens that several sequences of a row begin with: computed once (training/data/packing.py), laid out for attention.

T is the length of the row, C the number of tokens that are computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class SharedPrefixes(NamedTuple):
    """Which tokens of a row of T are computed, C of them, and which of those stands at each place of the row."""

    computed: Tensor  # (C,) places in the row, all different
    copies: Tensor  # (T,) from 0 to C - 1; any at the row's padding


def laid_out(x: Tensor, shared: SharedPrefixes) -> Tensor:
    """What was computed (C, …) at every place of the row (T, …). No gradient is recorded."""
    return x.index_select(0, shared.copies)


def summed(grad: Tensor, shared: SharedPrefixes) -> Tensor:
    """The gradient (T, …) of what is laid out, for what was computed (C, …); sums are taken in float32."""
    # embedding's backward pass: in parallel on a CPU, where index_add is not, and in a fixed order on a GPU.
    sums: Tensor = torch.ops.aten.embedding_dense_backward(
        grad.flatten(1).float(), shared.copies, len(shared.computed), -1, False
    )
    return sums.view(-1, *grad.shape[1:]).to(grad.dtype)


def at_first(grad: Tensor, shared: SharedPrefixes) -> Tensor:
    """The gradient (C, …) of what was kept of a row, for the row (T, …): zeros at what was not."""
    return grad.new_zeros(len(shared.copies), *grad.shape[1:]).index_copy_(0, shared.computed, grad)


class LayOut(Function):
    """`laid_out`, with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shared: SharedPrefixes) -> Tensor:
        ctx.shared = shared
        return laid_out(x, shared)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return summed(grad, ctx.shared), None
