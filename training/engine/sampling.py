"""How the next token is drawn: pure functions on rows of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from training.kernels import ops


def pick_tokens(weights: Tensor, uniform: Tensor) -> Tensor:
    """[n, V] weights >= 0 that need not sum to one, [n] numbers in [0, 1) -> [n] indices drawn in proportion.

    Inverts the cumulative sum: one pass over the row and a binary search, where torch.multinomial draws one random
    number for each of the V entries. An entry of weight zero is never picked.
    """
    edges = weights.cumsum(-1)
    total = edges[:, -1:]
    below = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform[:, None] * total, below)
    # Where weights are NaN the search ends behind the row: whoever drew sees it by the log-sum, and no index may break.
    return torch.searchsorted(edges, target, right=True).squeeze(-1).clamp_(max=weights.shape[-1] - 1)


def truncate(weights: Tensor, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest weights, sorted, with zeros where top_k and top_p cut, and the tokens they belong to: [n, w] twice.

    As usual top_k cuts first; top_p then keeps the smallest set of the likeliest that holds this share of what is left,
    the token that crosses the border included (Holtzman et al. 2019, arXiv:1904.09751). `w` grows until no row needs
    more.
    """
    vocabulary = weights.shape[-1]
    limit = torch.where(top_k > 0, top_k, vocabulary)
    width = min(vocabulary, max(64, int(top_k.max())))
    total = weights.sum(-1)
    while True:
        values, tokens = weights.topk(width)
        values = values.masked_fill(torch.arange(width, device=weights.device) >= limit[:, None], 0.0)
        mass = values.cumsum(-1)
        share = top_p * torch.where(limit <= width, mass[:, -1], total)
        whole = (limit <= width) | ((top_p < 1) & (mass[:, -1] >= share))
        if width == vocabulary or bool(whole.all()):
            break
        width = min(vocabulary, width * 8)
    cut = (mass - values >= share[:, None]) & (top_p < 1)[:, None]
    cut[:, 0] = False
    return values.masked_fill(cut, 0.0), tokens


def draw_tokens(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """The next token of each row.

    logits [n, V] float32; temperature [n], 0 for the likeliest token; top_k [n] integers, 0 for all; top_p [n];
    uniform [n] in [0, 1), the only randomness. Returns [n].
    """
    greedy = temperature == 0
    if bool(greedy.all()):
        return logits.argmax(-1)
    peak = logits.amax(-1, keepdim=True)
    weights = ((logits - peak) / torch.where(greedy, 1.0, temperature)[:, None]).exp_()
    cut = ((top_k > 0) | (top_p < 1)) & ~greedy
    if not bool(cut.any()):
        tokens = pick_tokens(weights, uniform)
    elif bool(cut.all()):
        tokens = _pick_truncated(weights, top_k, top_p, uniform)
    else:
        tokens = pick_tokens(weights, uniform)
        rows = cut.nonzero().squeeze(-1)
        tokens[rows] = _pick_truncated(weights[rows], top_k[rows], top_p[rows], uniform[rows])
    return torch.where(greedy, logits.argmax(-1), tokens) if bool(greedy.any()) else tokens


def drawn(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, uniform: Tensor, cut: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`draw` of logits of any dtype, with the tokens' log-probabilities under softmax(logits), float32, and each row's
    log-sum-exp: [n] each. cut: whether any row has a top_k or top_p."""
    if not cut and (sampled := ops.sample_tokens(logits, temperature, uniform)):
        return sampled
    logits = logits.float()
    normalizer = logits.logsumexp(-1)
    tokens = draw_tokens(logits, temperature, top_k, top_p, uniform)
    return tokens, logits.gather(-1, tokens[:, None]).squeeze(-1) - normalizer, normalizer


def tempered_logprobs(logits: Tensor, temperature: Tensor, tokens: Tensor) -> Tensor:
    """log softmax(logits / temperature) at the tokens, float32: [n, V], [n], [n] -> [n]. A temperature of 0 counts
    as 1."""
    scaled = logits.float() / torch.where(temperature == 0, 1.0, temperature)[:, None]
    return scaled.gather(-1, tokens[:, None]).squeeze(-1) - scaled.logsumexp(-1)


def _pick_truncated(weights: Tensor, top_k: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    truncated, tokens = truncate(weights, top_k, top_p)
    return tokens.gather(-1, pick_tokens(truncated, uniform)[:, None]).squeeze(-1)
