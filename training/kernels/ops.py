"""The work between a language model's matrix products, each in one pass over memory on a CPU.

Every function has two forms that agree to rounding: C++, where it could be compiled and the tensors are on a CPU, and
torch, on other devices and machines; for `sample_tokens` that is in sampling.py. They record no gradients. T is the
number of rows, H the width, M that of the feed-forward layer, d that of a head, V the vocabulary. Norms' inputs, sums,
weights and statistics are float32; "activations" are float32 or bfloat16, all of one call alike. C++ takes what is
dense (contiguous), and raises ValueError for anything else.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from training.kernels.native import Library, library


def kernels_for(x: Tensor, dtype: torch.dtype | None = None) -> Library | None:
    return library(dtype or x.dtype) if x.device.type == "cpu" else None


# --------------------------------------------------------------------------------------------------------------- norms


class NormOutput(NamedTuple):
    out: Tensor  # (T, H) activations
    inverse: Tensor  # (T,) 1 / root mean square


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> NormOutput:
    """RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467) of x (T, H), dense, weighted by (H,)."""
    if compiled := kernels_for(x, dtype):
        normed = NormOutput(torch.empty_like(x, dtype=dtype), x.new_empty(len(x)))
        compiled.call("rms_norm", x, weight, eps, len(x), x.shape[1], normed.out, normed.inverse)
        return normed
    # One launch, as torch's own rms_norm, which does not give the inverse away.
    normed_x, inverse = torch.ops.aten._fused_rms_norm(x, x.shape[-1:], weight, eps)
    return NormOutput(normed_x.to(dtype), inverse.flatten())


def residual_add(x: Tensor, residual: Tensor, bias: Tensor | None) -> Tensor:
    """x + more + bias: (T, H), activations (T, H), (H,) -> (T, H), all dense."""
    if compiled := kernels_for(residual):
        total = torch.empty_like(x)
        compiled.call("add_rms_norm", x, residual, bias, None, 0.0, len(x), x.shape[1], total, None, None)
        return total
    total = x + residual
    return total if bias is None else total.add_(bias)


def add_rms_norm(
    x: Tensor, residual: Tensor, bias: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, NormOutput]:
    """`residual_add` and the `rms_norm` of what it gives."""
    if compiled := kernels_for(residual):
        total, normed = torch.empty_like(x), NormOutput(torch.empty_like(residual), x.new_empty(len(x)))
        compiled.call("add_rms_norm", x, residual, bias, weight, eps, len(x), x.shape[1], total, *normed)
        return total, normed
    total = residual_add(x, residual, bias)
    return total, rms_norm(total, weight, eps, residual.dtype)


class NormGradients(NamedTuple):
    x: Tensor  # (T, H) float32
    cast: Tensor  # (T, H) the same as activations
    weight: Tensor | None  # (H,)
    out: Tensor | None  # (T, H) what the norm gave, once more


def rms_norm_backward(
    past: Tensor | None, grad: Tensor, x: Tensor, inverse: Tensor, weight: Tensor, learns: bool
) -> NormGradients:
    """Through `rms_norm`, for the gradient of what it gave, activations (T, H), added to that which goes `past` it to
    x, (T, H) float32; all dense. `learns`: whether the weight's gradient and the norm's result are wanted."""
    if compiled := kernels_for(grad):
        change = torch.empty_like(x)
        cast = change if grad.dtype == x.dtype else torch.empty_like(grad)
        d_weight, out = (torch.empty_like(weight), torch.empty_like(grad)) if learns else (None, None)
        compiled.call(
            "rms_norm_backward", past, grad, x, inverse, weight, len(x), x.shape[1], change,
            None if cast is change else cast, out, d_weight,
        )  # fmt: skip
        return NormGradients(change, cast, d_weight, out)
    unit, scaled = x * inverse[:, None], grad.float() * weight
    change = (scaled - unit * (scaled * unit).mean(-1, keepdim=True)) * inverse[:, None]
    if past is not None:
        change += past
    cast = change.to(grad.dtype)
    if not learns:
        return NormGradients(change, cast, None, None)
    return NormGradients(change, cast, (grad.float() * unit).sum(0), (unit * weight).to(grad.dtype))


# -------------------------------------------------------------------------------------------------------- feed-forward


def swiglu(joined: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, arXiv:2002.05202) of activations (T, 2 M), dense, gate before up -> (T, M)."""
    if compiled := kernels_for(joined):
        out = joined.new_empty(len(joined), joined.shape[1] // 2)
        compiled.call("swiglu", joined, len(out), out.shape[1], out)
        return out
    gate, up = joined.chunk(2, dim=-1)
    return functional.silu(gate) * up


def swiglu_backward(grad: Tensor, joined: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of `joined` (T, 2 M), and what `swiglu` gave, (T, M), once more; `grad` (T, M) is written over."""
    if compiled := kernels_for(joined):
        change = torch.empty_like(joined)
        compiled.call("swiglu_backward", grad, joined, len(grad), grad.shape[1], change)
        return change, grad
    gate, up = joined.chunk(2, dim=-1)
    acted = functional.silu(gate)
    change = torch.cat([torch.ops.aten.silu_backward(grad * up, gate), grad * acted], dim=-1)
    return change, acted * up


# ----------------------------------------------------------------------------------------------------------- attention


def apply_rotary(x: Tensor, cosine: Tensor, sine: Tensor, heads: int, *, back: bool = False) -> None:
    """Turn the first heads of activations (T, n, d), dense, in place, number i with number i + d / 2 (Su et al. 2021,
    arXiv:2104.09864, in transformers' order); cosine and sine (T, d / 2) float32, dense."""
    half, sign = x.shape[-1] // 2, -1.0 if back else 1.0
    if compiled := kernels_for(x):
        if x.stride()[1:] != (x.shape[-1], 1) or heads > x.shape[1]:
            raise ValueError(f"heads {tuple(x.shape)} with strides {x.stride()} do not lie side by side")
        compiled.call("apply_rotary", x, cosine, sine, len(x), heads, half, x.stride(0), sign)
        return
    low, second = x[:, :heads].float().split(half, dim=-1)
    c, s = cosine[:, None], sign * sine[:, None]
    x[:, :heads] = torch.cat([low * c - second * s, second * c + low * s], dim=-1).to(x.dtype)


def causal_softmax_backward(scores: Tensor, grads: Tensor, log_sums: Tensor, queries: int, scale: float) -> None:
    """Through causal attention weights exp(scale * score - log_sum), in place.

    scores (n, R, L) activations become the weights, and `grads`, those of the weights, become the scores'. log_sums (n,
    R) float32. Row r of R is token r % queries of L; later tokens than that have weight zero. All dense.
    """
    rows, width = scores.shape[0] * scores.shape[1], scores.shape[2]
    if compiled := kernels_for(scores):
        compiled.call("causal_softmax_backward", scores, grads, log_sums, rows, queries, width, scale)
        return
    places = torch.arange(width, device=scores.device)
    later = places > places[:queries, None]
    weights = (scores.float() * scale - log_sums[..., None]).unflatten(1, (-1, queries)).exp()
    weights = weights.masked_fill_(later, 0.0).flatten(1, 2)
    change = grads.float() * weights
    change = (change - weights * change.sum(-1, keepdim=True)) * scale
    scores.copy_(weights)
    grads.copy_(change)


# -------------------------------------------------------------------------------------------------------- output layer


class LogitStatistics(NamedTuple):
    """What is read from rows of logits."""

    logprobs: Tensor  # (T,) of the targets, nats
    log_sums: Tensor  # (T,)
    entropies: Tensor | None  # (T,) nats


def logprobs_from_logits(x: Tensor, targets: Tensor, scale: float, *, entropy: bool) -> LogitStatistics:
    """Of softmax(scale * x), for activations x (T, V), dense, and targets (T,)."""
    if compiled := kernels_for(x):
        logprobs, log_sums, entropies = torch.empty(3, len(x)).unbind()
        statistics = LogitStatistics(logprobs, log_sums, entropies if entropy else None)
        compiled.call("logprobs_from_logits", x, targets, scale, *x.shape, *statistics)
        return statistics
    scaled = x.float() * scale
    log_sums = scaled.logsumexp(-1)
    logprobs = scaled.gather(1, targets[:, None])[:, 0] - log_sums
    if not entropy:
        return LogitStatistics(logprobs, log_sums, None)
    log_p = scaled - log_sums[:, None]
    return LogitStatistics(logprobs, log_sums, -torch.linalg.vecdot(log_p.exp(), log_p))


def logprobs_from_logits_backward(
    x: Tensor,
    targets: Tensor,
    statistics: LogitStatistics,
    d_logprobs: Tensor,
    d_entropies: Tensor | None,
    scale: float,
) -> None:
    """x (T, V) becomes its gradient, for those of what `logprobs_from_logits` found, (T,) each, dense."""
    if compiled := kernels_for(x):
        compiled.call(
            "logprobs_from_logits_backward", x, targets, statistics.log_sums, statistics.entropies, d_logprobs,
            d_entropies, scale, *x.shape,
        )  # fmt: skip
        return
    log_p = x.float() * scale - statistics.log_sums[:, None]
    grad = d_logprobs[:, None].expand_as(x)
    if d_entropies is not None and statistics.entropies is not None:
        grad = grad + (log_p + statistics.entropies[:, None]) * d_entropies[:, None]
    change = log_p.exp().mul_(grad).neg_().scatter_add_(1, targets[:, None], d_logprobs[:, None])
    x.copy_(change.mul_(scale))


# ---------------------------------------------------------------------------------------------------------- generation


class HeadLayout(NamedTuple):
    """How the heads lie in a row of queries, keys and values."""

    queries: int
    keys: int
    eps: float  # of the norm of each head, if any


def norm_heads(x: Tensor, norms: Tensor, eps: float) -> None:
    """RMSNorm of each head of activations (n, heads, d), in place, weighted by `norms` (heads, d); by torch."""
    x.copy_(functional.rms_norm(x.float(), x.shape[-1:], None, eps) * norms)


class Places:
    """Where n sequences, of which each is about to get a token, have their keys and values.

    positions (n,): of the new tokens. table (n, blocks), dense: the pages of each sequence in the order of its tokens,
    padded with any page that there is. longest: the largest position plus one. What the torch forms need beside these
    is computed once for all layers.
    """

    def __init__(self, positions: Tensor, table: Tensor, longest: int) -> None:
        self.positions, self.table, self.longest = positions, table, longest
        self._written: tuple[Tensor, Tensor] | None = None
        self._visible: Tensor | None = None
        self._bias: Tensor | None = None
        self._turns: tuple[Tensor, Tensor] | None = None
        self._gathered: dict[int, tuple[Tensor, Tensor]] = {}  # what to take, by the number of heads

    def written(self, page: int) -> tuple[Tensor, Tensor]:
        """Page and offset of the new tokens, (n,) each."""
        if self._written is None:
            block = (self.positions // page)[:, None]
            self._written = self.table.gather(1, block)[:, 0], self.positions % page
        return self._written

    def visible(self) -> Tensor:
        """(n, longest): which tokens a sequence has."""
        if self._visible is None:
            self._visible = torch.arange(self.longest, device=self.positions.device) <= self.positions[:, None]
        return self._visible

    def bias(self, dtype: torch.dtype) -> Tensor:
        """(n, 1, 1, longest): zero where `visible`, minus infinity elsewhere."""
        if self._bias is None:
            blank = torch.zeros(self.visible().shape, dtype=dtype, device=self.positions.device)
            self._bias = blank.masked_fill_(~self.visible(), float("-inf"))[:, None, None]
        return self._bias

    def turns(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """What the numbers of the new tokens' heads, and those half a head further, are multiplied with to be turned,
        (n, 1, d) each."""
        if self._turns is None:
            c, s = cosine[self.positions], sine[self.positions]
            self._turns = torch.cat([c, c], -1)[:, None], torch.cat([-s, s], -1)[:, None]
        return self._turns

    def gathered(self, pages: Tensor) -> Tensor:
        """What `pages` (pages, kv_heads, page, d) hold of the sequences: a copy (n, kv_heads, longest, d)."""
        heads, page = pages.shape[1:3]
        if heads not in self._gathered:
            blocks = self.table[:, None, : -(-self.longest // page)]
            self._gathered[heads] = blocks, torch.arange(heads, device=blocks.device)[:, None]
        return pages[self._gathered[heads]].flatten(2, 3)[:, :, : self.longest]


def append_kv(
    joined: Tensor, heads: HeadLayout, norms: Tensor | None, cosine: Tensor, sine: Tensor, places: Places,
    keys: Tensor, values: Tensor,
) -> None:  # fmt: skip
    """One new token each of n sequences: normalize each head, where there are `norms` (heads + kv_heads, d), turn
    queries and keys, and put keys and values in their place.

    joined (n, heads + 2 kv_heads, d) activations, written over; cosine, sine (context, d / 2); keys and values (pages,
    kv_heads, page, d), dense but for room between two pages. The rest is dense.
    """
    n, _, d = joined.shape
    if compiled := kernels_for(joined):
        pages, _, page, _ = keys.shape
        compiled.call(
            "append_kv", joined, norms, heads.eps, cosine, sine, places.positions, places.table, n, heads.queries,
            heads.keys, d, len(cosine), places.table.shape[1], page, pages, keys.stride(0), keys, values,
        )  # fmt: skip
        return
    turned = heads.queries + heads.keys
    if norms is not None:
        norm_heads(joined[:, :turned], norms, heads.eps)
    near, far = places.turns(cosine, sine)
    x = joined[:, :turned].float()
    joined[:, :turned] = torch.addcmul(x * near, x.roll(d // 2, -1), far)
    to_page, offset = places.written(keys.shape[2])
    keys[to_page, :, offset], values[to_page, :, offset] = joined[:, heads.queries :].split(heads.keys, dim=1)


def decode_attention(
    joined: Tensor, heads: HeadLayout, keys: Tensor, values: Tensor, places: Places, scale: float
) -> Tensor:
    """What the n queries in `joined` see of their sequences: (n, heads * d). See `append_kv`."""
    n, _, d = joined.shape
    if compiled := kernels_for(joined):
        out = joined.new_empty(n, heads.queries * d)
        pages, _, page, _ = keys.shape
        compiled.call(
            "decode_attention", joined, keys, values, places.positions, places.table, scale, n, heads.queries,
            heads.keys, d, places.table.shape[1], page, pages, keys.stride(0), out,
        )  # fmt: skip
        return out
    # A query's heads that share a key are rows of one small product.
    queries = joined[:, : heads.queries].reshape(n, heads.keys, -1, d)
    return functional.scaled_dot_product_attention(
        queries, places.gathered(keys), places.gathered(values), attn_mask=places.bias(joined.dtype), scale=scale
    ).reshape(n, -1)


def sample_tokens(x: Tensor, temperature: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """A token of softmax(x / temperature) for each row, the likeliest where the temperature is 0, by inverting the
    cumulative sum at `uniform`; its log-probability under softmax(x); and the row's log-sum-exp. (n,) each.

    Activations x (n, V); temperature and uniform (n,) float32; all dense. None where only torch can compute.
    """
    if compiled := kernels_for(x):
        tokens, statistics = torch.empty(len(x), dtype=torch.long), torch.empty(2, len(x))
        compiled.call("sample_tokens", x, temperature, uniform, *x.shape, tokens, *statistics.unbind())
        return tokens, statistics[0], statistics[1]
    return None
