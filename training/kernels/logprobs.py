"""Log-probabilities of chosen tokens straight from hidden states, without the logits ever being there as a whole.

M is the number of positions that are read, H the width, V the vocabulary. The forward pass keeps one number a
position; the backward pass computes the logits once more, `positions_at_once` positions at a time (as Wijmans et al.
2024, arXiv:2411.09009, do on a GPU).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from training.contract.memory import positions_at_once
from training.kernels import ops
from training.kernels.native import as_on_gpu


class TokenLogprobs(NamedTuple):
    logprobs: Tensor  # (M,)
    entropy: Tensor  # (M,), zeros where not wanted


def logprobs_from_hidden(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float, *, entropy: bool
) -> TokenLogprobs:
    """log p(target) and the entropy (nats) of softmax(scale * (hidden @ weight.T + bias)).

    hidden (M, H), weight (V, H), bias (V), targets (M). Operands of products are in the dtype of autocast where that is
    on, the rest is float32; so are the logits on a GPU.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        return TokenLogprobs(*FromHidden.apply(hidden, weight, bias, targets, scale, dtype, entropy))


def gives_float32(hidden: Tensor) -> bool:
    """Whether logits are float32 although the operands are not: on a GPU, where that costs next to nothing. Rounded to
    bfloat16, a logit of 20 is known to 1/16 only, and engine and trainer would disagree about what was sampled."""
    if hidden.is_cuda and torch.version.hip is not None:
        return False  # torch documents `out_dtype` of a product for CUDA alone
    return hidden.dtype != torch.float32 and as_on_gpu(hidden.device.type)


def output_product(hidden: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """The logits (M, V) of hidden states (M, H) and output embeddings (V, H), both of one dtype."""
    if not gives_float32(hidden):
        return torch.mm(hidden, weight.t(), out=out)
    with torch.autocast(hidden.device.type, enabled=False):
        if hidden.is_cuda:
            return torch.mm(hidden, weight.t(), out_dtype=torch.float32, out=out)
        return torch.mm(hidden.float(), weight.t().float(), out=out)


def free_for_logits(device: torch.device) -> int | None:
    """Bytes of a GPU that nothing holds, those that torch keeps for later included; None on a CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


class Products:
    """The logits of some positions at a time, to be written over: (positions, V), in float32 on a GPU, else in the
    dtype of the products."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.hidden, self.weight = hidden, weight
        dtype = torch.float32 if gives_float32(hidden) else hidden.dtype
        self.bias = None if bias is None else bias.to(dtype)
        device = "cuda" if as_on_gpu(hidden.device.type) else "cpu"
        most = positions_at_once(len(weight), device, free_for_logits(hidden.device))
        self.at_once = max(1, min(len(hidden), most))
        self.space = hidden.new_empty(self.at_once, len(weight), dtype=dtype)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for begin in range(0, len(self.hidden), self.at_once):
            rows = slice(begin, min(begin + self.at_once, len(self.hidden)))
            out = output_product(self.hidden[rows], self.weight, out=self.space[: rows.stop - begin])
            yield rows, out if self.bias is None else out.add_(self.bias)


class FromHidden(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float,
        dtype: torch.dtype, entropy: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        h, w = hidden.to(dtype).contiguous(), weight.to(dtype)
        targets = targets.long().contiguous()  # as the kernels take them
        logprobs, log_sums, entropies = hidden.new_zeros(3, len(h), dtype=torch.float32).unbind()
        for rows, logits in Products(h, w, bias):
            statistics = ops.logprobs_from_logits(logits, targets[rows], scale, entropy=entropy)
            logprobs[rows], log_sums[rows] = statistics.logprobs, statistics.log_sums
            if statistics.entropies is not None:
                entropies[rows] = statistics.entropies
        ctx.save_for_backward(h, w, bias, targets, log_sums, entropies)
        ctx.settings = scale, hidden.dtype
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logprobs: Tensor | None, d_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        h, w, bias, targets, log_sums, entropies = ctx.saved_tensors
        scale, dtype = ctx.settings
        d_logprobs = torch.zeros_like(log_sums) if d_logprobs is None else d_logprobs.contiguous()
        d_entropy = None if d_entropy is None else d_entropy.contiguous()
        d_h = torch.empty_like(h)
        d_w = torch.zeros(w.shape, dtype=torch.float32, device=w.device) if ctx.needs_input_grad[1] else None
        d_b = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for rows, logits in Products(h, w, bias):
            statistics = ops.LogitStatistics(d_logprobs[rows], log_sums[rows], entropies[rows])
            spread = None if d_entropy is None else d_entropy[rows]
            ops.logprobs_from_logits_backward(logits, targets[rows], statistics, d_logprobs[rows], spread, scale)
            if d_b is not None:
                d_b += logits.sum(dim=0, dtype=torch.float32)
            gradient = logits.to(h.dtype)
            torch.mm(gradient, w, out=d_h[rows])
            if d_w is not None:
                d_w += torch.mm(gradient.t(), h[rows])
        return d_h.to(dtype), d_w, d_b, None, None, None, None
