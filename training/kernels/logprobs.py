"""Log-probabilities of chosen tokens straight from hidden states, without the logits ever being there as a whole.

M is the number of positions that are read, H the width, V the vocabulary. Logits are there for `positions_at_once`
positions at a time (as in Wijmans et al. 2024, arXiv:2411.09009). What the backward pass needs of them:

- Where the output embeddings are frozen, nothing: the gradient of a hidden state is that of its log-probability times
  a vector that the forward pass finds already.
- Where they learn, the logits of the first `positions_kept` positions stay; the others are computed once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from training.contract.memory import positions_at_once, positions_kept
from training.kernels import ops
from training.kernels.native import as_on_gpu
from training.kernels.ops import LogitStatistics


class TokenLogprobs(NamedTuple):
    logprobs: Tensor  # (M,)
    entropy: Tensor  # (M,), zeros where not wanted


def logprobs_from_hidden(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scale: float,
    *,
    entropy: bool,
    entropy_gradient: bool = False,
) -> TokenLogprobs:
    """log p(target) and the entropy (nats) of softmax(scale * (hidden @ weight.T + bias)), without a gradient of the
    latter unless wanted.

    hidden (M, H), weight (V, H), bias (V), targets (M). Operands of products are in the dtype of autocast where that is
    on, the rest is float32; so are the logits on a GPU.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled() and hidden.requires_grad and not learns and not entropy_gradient:
            return TokenLogprobs(*FromFrozen.apply(hidden, weight, bias, targets, scale, dtype, entropy))
        kept_positions = positions_that(positions_kept, hidden, weight) if torch.is_grad_enabled() else 0
        logprobs, entropies = FromHidden.apply(hidden, weight, bias, targets, scale, dtype, entropy, kept_positions)
    return TokenLogprobs(logprobs, entropies if entropy_gradient else entropies.detach())


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


def positions_that(rule: Callable[[int, str, int | None], int], hidden: Tensor, weight: Tensor) -> int:
    """How many positions one of the rules of training/contract/memory.py allows here and now."""
    device = "cuda" if as_on_gpu(hidden.device.type) else "cpu"
    return rule(len(weight), device, free_for_logits(hidden.device))


def products(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, *, begin: int = 0, kept_positions: int = 0
) -> Iterator[tuple[slice, Tensor]]:
    """The logits (positions, V) of some positions at a time, from `begin` on, in float32 on a GPU, else in the dtype of
    the products. They may be written over; the next ones take their place, except for the first `kept` positions."""
    dtype = torch.float32 if gives_float32(hidden) else hidden.dtype
    bias = None if bias is None else bias.to(dtype)
    per_piece = positions_that(positions_at_once, hidden, weight)
    space: Tensor | None = None
    for start in range(begin, len(hidden), per_piece):
        rows = slice(start, min(start + per_piece, len(hidden)))
        if space is None or rows.stop <= kept_positions:
            space = hidden.new_empty(rows.stop - start, len(weight), dtype=dtype)
        out = output_product(hidden[rows], weight, out=space[: rows.stop - start])
        yield rows, out if bias is None else out.add_(bias)
        if rows.stop <= kept_positions:
            space = None


def read(
    pieces: Iterable[tuple[slice, Tensor]], targets: Tensor, scale: float, whole: LogitStatistics, entropy: bool
) -> Iterator[tuple[slice, Tensor, LogitStatistics]]:
    """Each piece with its statistics, which are written into the `whole`."""
    for rows, logits in pieces:
        statistics = ops.logprobs_from_logits(logits, targets[rows], scale, entropy=entropy)
        for target, values in zip(whole, statistics, strict=True):
            if target is not None and values is not None:
                target[rows] = values
        yield rows, logits, statistics


Pieces = list[tuple[slice, Tensor]]


class FromHidden(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float,
        dtype: torch.dtype, entropy: bool, kept_positions: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        h, w = hidden.to(dtype).contiguous(), weight.to(dtype)
        targets = targets.long().contiguous()  # as the kernels take them
        logprobs, log_sums, entropies = hidden.new_zeros(3, len(h), dtype=torch.float32).unbind()
        ctx.kept = Pieces()
        pieces = products(h, w, bias, kept_positions=kept_positions)
        for rows, logits, _ in read(pieces, targets, scale, LogitStatistics(logprobs, log_sums, entropies), entropy):
            if rows.stop <= kept_positions:
                ctx.kept.append((rows, logits))
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
        for rows, logits in pieces_again(ctx, h, w, bias):
            statistics = LogitStatistics(d_logprobs[rows], log_sums[rows], entropies[rows])
            spread = None if d_entropy is None else d_entropy[rows]
            ops.logprobs_from_logits_backward(logits, targets[rows], statistics, d_logprobs[rows], spread, scale)
            if d_b is not None:
                d_b += logits.sum(dim=0, dtype=torch.float32)
            gradient = logits.to(h.dtype)
            torch.mm(gradient, w, out=d_h[rows])
            if d_w is not None:
                d_w += torch.mm(gradient.t(), h[rows])
        return d_h.to(dtype), d_w, d_b, None, None, None, None, None


def pieces_again(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """The logits that were kept, each given up when the next is asked for, then the others. What was kept is written
    over, so that a second backward pass finds nothing kept, and computes all of them."""
    kept_pieces, ctx.kept = ctx.kept, Pieces()
    begin = 0
    while kept_pieces:
        begin = kept_pieces[0][0].stop
        yield kept_pieces.pop(0)
    yield from products(hidden, weight, bias, begin=begin)


class FromFrozen(Function):
    """Of output embeddings that do not learn, and without a gradient of the entropy."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float,
        dtype: torch.dtype, entropy: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        h, w = hidden.to(dtype).contiguous(), weight.to(dtype)
        targets = targets.long().contiguous()
        logprobs, log_sums, entropies = hidden.new_zeros(3, len(h), dtype=torch.float32).unbind()
        slopes, ones = torch.empty_like(h), torch.ones_like(logprobs)
        whole = LogitStatistics(logprobs, log_sums, entropies)
        for rows, logits, statistics in read(products(h, w, bias), targets, scale, whole, entropy):
            ops.logprobs_from_logits_backward(logits, targets[rows], statistics, ones[rows], None, scale)
            torch.mm(logits.to(h.dtype), w, out=slopes[rows])
        ctx.save_for_backward(slopes)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logprobs: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * d_logprobs[:, None]).to(ctx.dtype), *[None] * 6
