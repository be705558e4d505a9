"""Attention of packed sequences against torch's own on each sequence, with its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training import attention
from training.attention import OnCPU, halves

BLOCKS = [(3, 40), (1, 24), (5, 8)]
ROW = sum(n * width for n, width in BLOCKS)
SCALE = 0.3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the largest entry


def tensors(kv_heads: int, dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(ROW, heads, 16, generator=draw).to(dtype).requires_grad_() for heads in (4, kv_heads, kv_heads)]


def slowly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Each sequence for itself, in float32, differentiated by torch."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (x.float().transpose(0, 1) for x in (query, *(x.repeat_interleave(groups, 1) for x in (key, value))))
    seen, start = [], 0
    for n, width in BLOCKS:
        for _ in range(n):
            part = (x[:, start : start + width] for x in (q, k, v))
            seen.append(functional.scaled_dot_product_attention(*part, is_causal=True, scale=SCALE))
            start += width
    return torch.cat(seen, dim=1).transpose(0, 1)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize("weights", [1 << 20, 1])
def test_it_is_torchs_attention_of_each_sequence_with_its_gradients(
    monkeypatch: pytest.MonkeyPatch, kv_heads: int, dtype: torch.dtype, written_out: bool, weights: int
) -> None:
    monkeypatch.setattr(attention, "LONG", {dtype: 1 << 20 if written_out else 0})
    monkeypatch.setattr(attention, "WEIGHTS", weights)
    ours, theirs = tensors(kv_heads, dtype), tensors(kv_heads, dtype)
    grad = torch.randn(ROW, 4, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    found, wanted = OnCPU.apply(*ours, BLOCKS, SCALE), slowly(*theirs)
    found.backward(grad)
    wanted.backward(grad.float())
    pairs = [
        (found.detach(), wanted.detach()),
        *((one.grad, other.grad) for one, other in zip(ours, theirs, strict=True)),
    ]
    for one, other in pairs:
        assert float((one.float() - other.float()).abs().max()) < TOLERANCE[dtype] * float(other.abs().max())


def test_what_is_passed_in_stays_as_it_is() -> None:
    ours = tensors(2, torch.bfloat16)
    before = [x.detach().clone() for x in ours]
    grad = torch.ones(ROW, 4, 16, dtype=torch.bfloat16)
    OnCPU.apply(*ours, BLOCKS, SCALE).backward(grad)
    assert all(torch.equal(x.detach(), y) for x, y in zip(ours, before, strict=True))
    assert bool((grad == 1).all())


def test_pieces_are_powers_of_two_and_leave_nothing_out() -> None:
    assert [(s.start, s.stop) for s in halves(13, 4)] == [(0, 4), (4, 8), (8, 12), (12, 13)]
    assert [(s.start, s.stop) for s in halves(7, 100)] == [(0, 4), (4, 6), (6, 7)]
