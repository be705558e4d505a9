"""Log-probabilities of chosen tokens straight from hidden states, without the logits ever being there as a whole.

M is the number of positions that are read, H the width, V the vocabulary. The forward pass keeps one number a
position; the backward pass computes the logits once more, CHUNK of them at a time (as Wijmans et al. 2024,
arXiv:2411.09009, do on a GPU).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHUNK: Final = 1 << 24  # logits held at once: 64 MiB in float32
ROWS: Final = 512  # positions worked on at once within a chunk, so that they stay in the processor's cache


class Read(NamedTuple):
    logprobs: Tensor  # (M,)
    entropy: Tensor  # (M,), zeros where not wanted


def read(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float, *, entropy: bool) -> Read:
    """log p(target) and the entropy (nats) of softmax(scale * (hidden @ weight.T + bias)).

    hidden (M, H), weight (V, H), bias (V), targets (M). Products are in the dtype of autocast where that is on, the
    rest is float32.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        return Read(*FromHidden.apply(hidden, weight, bias, targets, scale, dtype, entropy))


class FromHidden(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float,
        dtype: torch.dtype, entropy: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        h, w = hidden.to(dtype), weight.to(dtype)
        log_sums = torch.empty(len(h), device=h.device)
        logprobs, entropies = torch.empty_like(log_sums), torch.zeros_like(log_sums)
        for some, wanted, log_sum, logprob, spread in zip(
            *(x.split(ROWS) for x in (h, targets, log_sums, logprobs, entropies)), strict=True
        ):
            x = logits(some, w, bias, scale)
            most = x.amax(dim=1, keepdim=True)
            chosen = x.gather(1, wanted[:, None])[:, 0]
            weights = x.sub(most).exp_() if entropy else x.sub_(most).exp_()
            total = weights.sum(dim=1)
            torch.add(most[:, 0], total.log(), out=log_sum)
            torch.sub(chosen, log_sum, out=logprob)
            if entropy:
                torch.sub(log_sum, torch.linalg.vecdot(weights, x).div_(total), out=spread)
        ctx.save_for_backward(h, w, bias, targets, log_sums, entropies if entropy else None)
        ctx.settings = scale, hidden.dtype
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logprobs: Tensor | None, d_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        h, w, bias, targets, log_sums, entropies = ctx.saved_tensors
        scale, dtype = ctx.settings
        if d_logprobs is None:
            d_logprobs = torch.zeros_like(log_sums)
        at_once = max(ROWS, CHUNK // len(w) // ROWS * ROWS)
        d_h = torch.empty_like(h)
        d_w = torch.zeros(w.shape, dtype=torch.float32, device=w.device) if ctx.needs_input_grad[1] else None
        d_b = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        held = torch.empty(min(at_once, len(h)), len(w), dtype=h.dtype, device=h.device)
        for first in range(0, len(h), at_once):
            chunk = slice(first, min(first + at_once, len(h)))
            d_x = held[: chunk.stop - first]
            for a in range(first, chunk.stop, ROWS):
                some = slice(a, min(a + ROWS, chunk.stop))
                spread = None if entropies is None or d_entropy is None else (entropies[some], d_entropy[some])
                x = logits(h[some], w, bias, scale).sub_(log_sums[some, None])
                change = gradient(x, targets[some], d_logprobs[some], spread).mul_(scale)
                if d_b is not None:
                    d_b += change.sum(dim=0)
                d_x[a - first : some.stop - first] = change
            torch.mm(d_x, w, out=d_h[chunk])
            if d_w is not None:
                d_w += torch.mm(d_x.t(), h[chunk])
        return d_h.to(dtype), d_w, d_b, None, None, None, None


def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """(M, V) in float32, a tensor of its own."""
    x = torch.mm(hidden, weight.t()).float()
    if bias is not None:
        x += bias
    return x if scale == 1 else x.mul_(scale)


def gradient(log_p: Tensor, targets: Tensor, grad: Tensor, spread: tuple[Tensor, Tensor] | None) -> Tensor:
    """The gradient of the logits (M, V), written over log_p: of log p(target) weighted by `grad` (M,), and of the
    entropies, given with their gradients (M,) each."""
    if spread is None:
        change = log_p.exp_().mul_(-grad[:, None])
    else:
        entropy, d_entropy = (x[:, None] for x in spread)
        change = log_p.exp().mul_(log_p.add_(entropy).mul_(d_entropy).add_(grad[:, None]).neg_())
    return change.scatter_add_(1, targets[:, None], grad[:, None])
