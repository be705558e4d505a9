"""How the next token is drawn: pure functions on rows of logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.kernels import ops


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """How n rows are drawn, on the device [n], and what of that decides which operations are needed: known on the host,
    so that no draw waits for the device."""

    temperature: Tensor  # 0 for the likeliest token
    top_k: Tensor  # 0 for all
    top_p: Tensor
    greedy: Tensor | None  # which rows take the likeliest token; None: no row
    all_greedy: bool
    cut_rows: Tensor | None  # the rows, not greedy, with a top_k or top_p; None: no row
    all_cut: bool
    widest_k: int  # the largest top_k of these
    nucleus: bool  # whether one of these has a top_p

    @classmethod
    def of(
        cls, temperatures: Sequence[float], top_ks: Sequence[int], top_ps: Sequence[float], device: torch.device
    ) -> DrawSettings:
        greedy = [temperature == 0 for temperature in temperatures]
        cut = [i for i, (k, p) in enumerate(zip(top_ks, top_ps, strict=True)) if (k > 0 or p < 1) and not greedy[i]]
        return cls(
            torch.tensor(temperatures, device=device, dtype=torch.float32),
            torch.tensor(top_ks, device=device),
            torch.tensor(top_ps, device=device, dtype=torch.float32),
            torch.tensor(greedy, device=device) if any(greedy) else None,
            all(greedy),
            torch.tensor(cut, device=device) if cut else None,
            len(cut) == len(greedy),
            max((top_ks[i] for i in cut), default=0),
            any(top_ps[i] < 1 for i in cut),
        )


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


def truncate(
    weights: Tensor, top_k: Tensor, top_p: Tensor, widest_k: int, *, nucleus: bool = True
) -> tuple[Tensor, Tensor]:
    """The likeliest weights, sorted, with zeros where top_k and top_p cut, and the tokens they belong to: [n, w] twice.

    As usual top_k cuts first; top_p then keeps the smallest set of the likeliest that holds this share of what is left,
    the token that crosses the border included (Holtzman et al. 2019, arXiv:1904.09751). widest_k: the largest top_k.
    nucleus: whether a row has a top_p or neither; `w` then grows until no row needs more, which only the device knows.
    """
    vocabulary = weights.shape[-1]
    limit = torch.where(top_k > 0, top_k, vocabulary)
    width = min(vocabulary, max(64, widest_k))
    total = weights.sum(-1)
    while True:
        values, tokens = weights.topk(width)
        values = values.masked_fill(torch.arange(width, device=weights.device) >= limit[:, None], 0.0)
        mass = values.cumsum(-1)
        share = top_p * torch.where(limit <= width, mass[:, -1], total)
        whole = (limit <= width) | ((top_p < 1) & (mass[:, -1] >= share))
        if width == vocabulary or not nucleus or bool(whole.all()):
            break
        width = min(vocabulary, width * 8)
    cut = (mass - values >= share[:, None]) & (top_p < 1)[:, None]
    cut[:, 0] = False
    return values.masked_fill(cut, 0.0), tokens


def draw_tokens(logits: Tensor, rows: DrawSettings, uniform: Tensor) -> Tensor:
    """The next token of each row: logits [n, V] float32, uniform [n] in [0, 1), the only randomness. Returns [n]."""
    if rows.all_greedy:
        return logits.argmax(-1)
    peak = logits.amax(-1, keepdim=True)
    temperature = rows.temperature if rows.greedy is None else torch.where(rows.greedy, 1.0, rows.temperature)
    weights = ((logits - peak) / temperature[:, None]).exp_()
    if rows.cut_rows is None:
        tokens = pick_tokens(weights, uniform)
    elif rows.all_cut:
        tokens = _pick_truncated(weights, rows, rows.top_k, rows.top_p, uniform)
    else:
        tokens, cut = pick_tokens(weights, uniform), rows.cut_rows
        tokens[cut] = _pick_truncated(weights[cut], rows, rows.top_k[cut], rows.top_p[cut], uniform[cut])
    return tokens if rows.greedy is None else torch.where(rows.greedy, logits.argmax(-1), tokens)


def drawn(logits: Tensor, rows: DrawSettings, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`draw_tokens` of logits of any dtype, with the tokens' log-probabilities under softmax(logits), float32, and each
    row's log-sum-exp: [n] each."""
    if rows.cut_rows is None and (sampled := ops.sample_tokens(logits, rows.temperature, uniform)):
        return sampled
    logits = logits.float()
    normalizer = logits.logsumexp(-1)
    tokens = draw_tokens(logits, rows, uniform)
    return tokens, logits.gather(-1, tokens[:, None]).squeeze(-1) - normalizer, normalizer


def tempered_logprobs(logits: Tensor, temperature: Tensor, tokens: Tensor) -> Tensor:
    """log softmax(logits / temperature) at the tokens, float32: [n, V], [n], [n] -> [n]. A temperature of 0 counts
    as 1."""
    scaled = logits.float() / torch.where(temperature == 0, 1.0, temperature)[:, None]
    return scaled.gather(-1, tokens[:, None]).squeeze(-1) - scaled.logsumexp(-1)


def _pick_truncated(weights: Tensor, rows: DrawSettings, top_k: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    truncated, tokens = truncate(weights, top_k, top_p, rows.widest_k, nucleus=rows.nucleus)
    return tokens.gather(-1, pick_tokens(truncated, uniform)[:, None]).squeeze(-1)
