"""Log-probabilities of chosen tokens straight from hidden states, without the logits ever being there as a whole.

M is the number of positions that are read, H the width, V the vocabulary. The forward pass keeps one number a
position; the backward pass computes the logits once more, CHUNK of them at a time (as Wijmans et al. 2024,
arXiv:2411.09009, do on a GPU).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHUNK: Final = 1 << 24  # logits held at once: 64 MiB in float32
CACHED: Final = 1 << 19  # of these worked on in one go, so that they stay in the processor's cache


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


class Scratch:
    """Space for the logits of some positions: those of CHUNK as products come, in turn a few positions in float32."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float) -> None:
        vocabulary = len(weight)
        self.hidden, self.weight, self.bias, self.scale = hidden, weight, bias, scale
        self.rows = max(1, CACHED // vocabulary)
        most = max(self.rows, CHUNK // vocabulary // self.rows * self.rows)
        self.at_once = max(1, min(len(hidden), most))
        self.products = hidden.new_empty(self.at_once, vocabulary)
        self.space = torch.empty(min(self.rows, self.at_once), vocabulary, device=hidden.device)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Which positions, and their products with the weight, to be written over."""
        for first in range(0, len(self.hidden), self.at_once):
            chunk = slice(first, min(first + self.at_once, len(self.hidden)))
            products = self.products[: chunk.stop - first]
            yield chunk, torch.mm(self.hidden[chunk], self.weight.t(), out=products)

    def parts(self, chunk: slice, products: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Which positions, their products, and their logits in float32, to be written over."""
        for a, some in zip(range(chunk.start, chunk.stop, self.rows), products.split(self.rows), strict=True):
            x = self.space[: len(some)].copy_(some)
            if self.bias is not None:
                x += self.bias
            yield slice(a, a + len(some)), some, x if self.scale == 1 else x.mul_(self.scale)


class FromHidden(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float,
        dtype: torch.dtype, entropy: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        h, w = hidden.to(dtype), weight.to(dtype)
        log_sums = torch.empty(len(h), device=h.device)
        logprobs, entropies = torch.empty_like(log_sums), torch.zeros_like(log_sums)
        scratch = Scratch(h, w, bias, scale)
        for chunk, products in scratch.chunks():
            for some, _, x in scratch.parts(chunk, products):
                most = x.amax(dim=1, keepdim=True)
                chosen = x.gather(1, targets[some, None])[:, 0]
                weights = x.sub(most).exp_() if entropy else x.sub_(most).exp_()
                total = weights.sum(dim=1)
                log_sum = torch.add(most[:, 0], total.log(), out=log_sums[some])
                torch.sub(chosen, log_sum, out=logprobs[some])
                if entropy:
                    torch.sub(log_sum, torch.linalg.vecdot(weights, x).div_(total), out=entropies[some])
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
        d_h = torch.empty_like(h)
        d_w = torch.zeros(w.shape, dtype=torch.float32, device=w.device) if ctx.needs_input_grad[1] else None
        d_b = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        scratch = Scratch(h, w, bias, scale)
        for chunk, products in scratch.chunks():
            for some, there, x in scratch.parts(chunk, products):
                spread = None if entropies is None or d_entropy is None else (entropies[some], scale * d_entropy[some])
                log_p = x.sub_(log_sums[some, None])
                change = gradient(log_p, targets[some], scale * d_logprobs[some], spread)
                if d_b is not None:
                    d_b += change.sum(dim=0)
                there.copy_(change)
            torch.mm(products, w, out=d_h[chunk])
            if d_w is not None:
                d_w += torch.mm(products.t(), h[chunk])
        return d_h.to(dtype), d_w, d_b, None, None, None, None


def gradient(log_p: Tensor, targets: Tensor, grad: Tensor, spread: tuple[Tensor, Tensor] | None) -> Tensor:
    """The gradient of the logits (M, V), written over log_p: of log p(target) weighted by `grad` (M,), and of the
    entropies, given with their gradients (M,) each."""
    if spread is None:
        change = log_p.exp_().mul_(-grad[:, None])
    else:
        entropy, d_entropy = (x[:, None] for x in spread)
        change = log_p.exp().mul_(log_p.add_(entropy).mul_(d_entropy).add_(grad[:, None]).neg_())
    return change.scatter_add_(1, targets[:, None], grad[:, None])
