"""Attention of packed sequences against torch's own on each sequence, with its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.narrowing import existing
from training.kernels import amx, attention
from training.kernels.amx import Blocks
from training.kernels.attention import OnCPU, halves

BLOCKS = [(3, 40), (1, 24), (5, 8)]
AT_EDGES = [(1, 1), (2, 32), (1, 33), (1, 300), (1, 257)]  # of the tiles, and of sums over them
SCALE = 0.3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}  # of the largest entry
WAYS = ["tiles", "written out", "torch's kernel"]


def tensors(kv_heads: int, dtype: torch.dtype, blocks: Blocks = BLOCKS, d: int = 16) -> list[Tensor]:
    """Queries of four heads, keys and values, as they lie in one product's rows."""
    draw = torch.Generator().manual_seed(0)
    row = sum(n * width for n, width in blocks)
    joined = torch.randn(row, 4 + 2 * kv_heads, d, generator=draw).to(dtype)
    return [x.detach().requires_grad_() for x in joined.split([4, kv_heads, kv_heads], dim=1)]


def slowly(query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """Each sequence for itself, in float32, differentiated by torch."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (x.float().transpose(0, 1) for x in (query, *(x.repeat_interleave(groups, 1) for x in (key, value))))
    seen, start = [], 0
    for n, width in blocks:
        for _ in range(n):
            q_part, k_part, v_part = (x[:, start : start + width] for x in (q, k, v))
            seen.append(functional.scaled_dot_product_attention(q_part, k_part, v_part, is_causal=True, scale=scale))
            start += width
    return torch.cat(seen, dim=1).transpose(0, 1)


def go(monkeypatch: pytest.MonkeyPatch, way: str, dtype: torch.dtype) -> None:
    """Have attention computed in one of the ways there are."""
    if way != "tiles":
        monkeypatch.setattr(amx, "amx_kernels", lambda _: None)
        monkeypatch.setattr(attention, "LONG", {dtype: 1 << 20 if way == "written out" else 0})
    elif dtype == torch.float32:
        pytest.skip("tiles multiply bfloat16")
    else:
        wants_tiles()


def wants_tiles() -> None:
    if amx.amx_kernels(torch.empty(0, dtype=torch.bfloat16)) is None:
        pytest.skip("this processor has no AMX, or there are no compiled kernels")


def assert_alike(ours: list[Tensor], blocks: Blocks, scale: float) -> None:
    assert_close_to_plain(OnCPU.apply(*ours, blocks, scale, None), ours, blocks, scale)


def assert_close_to_plain(
    found: Tensor, ours: list[Tensor], blocks: Blocks, scale: float, dtype: torch.dtype | None = None
) -> None:
    """`found`, computed from ours in `dtype`, is attention of each sequence to itself, and so are its gradients."""
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    query, key, value = theirs
    wanted = slowly(query, key, value, blocks, scale)
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    found.backward(grad)
    wanted.backward(grad.float())
    pairs = [
        (found.detach(), wanted.detach()),
        *((existing(one.grad), existing(other.grad)) for one, other in zip(ours, theirs, strict=True)),
    ]
    for one, other in pairs:
        bound = TOLERANCE[dtype or one.dtype] * float(other.abs().max())
        assert float((one.float() - other.float()).abs().max()) <= bound


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weights", [1 << 20, 1])
def test_it_is_torchs_attention_of_each_sequence_with_its_gradients(
    monkeypatch: pytest.MonkeyPatch, kv_heads: int, dtype: torch.dtype, way: str, weights: int
) -> None:
    go(monkeypatch, way, dtype)
    monkeypatch.setattr(attention, "WEIGHTS", weights)
    assert_alike(tensors(kv_heads, dtype), BLOCKS, SCALE)


@pytest.mark.parametrize("d", [8, 40, 64, 96])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_the_lengths_and_the_width_of_a_head(monkeypatch: pytest.MonkeyPatch, way: str, d: int) -> None:
    go(monkeypatch, way, torch.bfloat16)
    assert_alike(tensors(2, torch.bfloat16, AT_EDGES, d), AT_EDGES, d**-0.5)


def test_on_tiles_the_number_of_threads_changes_nothing() -> None:
    wants_tiles()
    found, threads = [], torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        try:
            ours = tensors(2, torch.bfloat16, AT_EDGES)
            seen = OnCPU.apply(*ours, AT_EDGES, SCALE, None)
            seen.backward(seen.detach())
        finally:
            torch.set_num_threads(threads)
        found.append([seen.detach(), *(x.grad for x in ours)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_on_tiles_blocks_that_do_not_make_up_the_row_are_refused() -> None:
    wants_tiles()
    ours = tensors(2, torch.bfloat16)
    with pytest.raises(ValueError, match="do not make up the row"):
        OnCPU.apply(*ours, [*BLOCKS, (1, 8)], SCALE, None)


def test_on_tiles_what_is_not_a_number_stays_in_its_sequence() -> None:
    wants_tiles()
    ours = tensors(2, torch.bfloat16)
    with torch.no_grad():
        ours[2][45] = float("nan")  # a value in the second sequence
    seen = OnCPU.apply(*ours, BLOCKS, SCALE, None)
    seen.backward(torch.ones_like(seen))
    for x in (seen, *(one.grad for one in ours)):
        kept = torch.cat([x[:40], x[80:]])
        assert bool(kept.isfinite().all())
    assert bool(seen[45:80].isnan().all())


def test_what_is_passed_in_stays_as_it_is() -> None:
    ours = tensors(2, torch.bfloat16)
    before = [x.detach().clone() for x in ours]
    grad = torch.ones(sum(n * width for n, width in BLOCKS), 4, 16, dtype=torch.bfloat16)
    OnCPU.apply(*ours, BLOCKS, SCALE, None).backward(grad)
    assert all(torch.equal(x.detach(), y) for x, y in zip(ours, before, strict=True))
    assert bool((grad == 1).all())


def test_pieces_are_powers_of_two_and_leave_nothing_out() -> None:
    assert [(s.start, s.stop) for s in halves(13, 4)] == [(0, 4), (4, 8), (8, 12), (12, 13)]
    assert [(s.start, s.stop) for s in halves(7, 100)] == [(0, 4), (4, 6), (6, 7)]
