"""The way attention is computed on a GPU, on a CPU: packed rows in one call, with gradients, against the plain way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.training.kernels.test_attention import AT_EDGES, BLOCKS, SCALE, assert_close_to_plain, tensors
from training.kernels import varlen
from training.kernels.amx import Blocks
from training.kernels.attention import varlen_attention
from training.kernels.native import SWITCH, library
from training.kernels.varlen import causal_varlen_attention, reference_varlen, supports_varlen

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SWITCH, "as-gpu")
    library.cache_clear()
    yield
    library.cache_clear()


def offsets_of(blocks: Blocks) -> Tensor:
    widths = [width for n, width in blocks for _ in range(n)]
    return torch.tensor([0, *torch.tensor(widths).cumsum(0).tolist()], dtype=torch.int32)


def longest_of(blocks: Blocks) -> int:
    return max(width for _, width in blocks)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("blocks", [BLOCKS, AT_EDGES, [(3, 1)]])
def test_each_sequence_attends_to_itself_with_its_gradients(kv_heads: int, dtype: torch.dtype, blocks: Blocks) -> None:
    ours = tensors(kv_heads, dtype, blocks)
    query, key, value = ours
    attended = causal_varlen_attention(query, key, value, offsets_of(blocks), longest_of(blocks), SCALE)
    assert attended.dtype == dtype
    assert_close_to_plain(attended, ours, blocks, SCALE)


def through_the_interface(rows: list[Tensor], blocks: Blocks) -> Tensor:
    """As transformers' modules call it."""
    query, key, value = (x.transpose(0, 1)[None] for x in rows)
    attended, _ = varlen_attention(
        nn.Module().eval(), query, key, value, None, blocks=blocks, offsets=offsets_of(blocks), scaling=SCALE
    )
    return attended[0]


def counted_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def counting(*arguments: object) -> Tensor:
        calls.append(1)
        attended: Tensor = reference_varlen(*arguments)
        return attended

    monkeypatch.setattr(varlen, "reference_varlen", counting)
    return calls


@pytest.mark.parametrize("autocast", [True, False])
def test_a_packed_row_is_one_call(monkeypatch: pytest.MonkeyPatch, *, autocast: bool) -> None:
    calls = counted_calls(monkeypatch)
    ours = tensors(2, torch.float32 if autocast else torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        attended = through_the_interface(ours, BLOCKS)
    assert (len(calls), attended.dtype) == (1, torch.bfloat16)
    assert_close_to_plain(attended, ours, BLOCKS, SCALE, torch.bfloat16)


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 16), (torch.bfloat16, 20), (torch.bfloat16, 264)])
def test_what_the_kernel_does_not_take_is_computed_in_blocks(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, width: int
) -> None:
    calls = counted_calls(monkeypatch)
    ours = tensors(2, dtype, BLOCKS, width)
    attended = through_the_interface(ours, BLOCKS)
    assert not calls
    assert_close_to_plain(attended, ours, BLOCKS, SCALE)


@pytest.mark.parametrize(("capability", "width", "takes"), [
    ((7, 5), 64, False), ((8, 0), 64, True), ((8, 0), 208, True), ((8, 9), 208, False), ((8, 9), 256, True),
    ((9, 0), 256, True), ((12, 0), 208, False),
])  # fmt: skip
def test_a_card_is_asked_for_what_it_can(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], width: int, *, takes: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    row = torch.empty(8, 2, width, dtype=torch.bfloat16, device="meta")
    monkeypatch.setattr(varlen, "device_type", lambda _: "cuda")
    assert supports_varlen(row, row, row) == takes


@pytest.mark.parametrize(("offsets", "why"), [
    (torch.tensor([0, 40, 184], dtype=torch.int64), "must be int32"),
    (torch.tensor([0, 40, 180], dtype=torch.int32), "do not make up the row"),
    (torch.tensor([0, 40, 40, 184], dtype=torch.int32), "do not make up the row"),
    (torch.tensor([0, 184], dtype=torch.int32), "do not make up the row"),
])  # fmt: skip
def test_arguments_that_the_kernel_would_read_wrongly_are_refused(offsets: Tensor, why: str) -> None:
    query, key, value = (x.detach() for x in tensors(2, torch.bfloat16))
    with pytest.raises(ValueError, match=why):
        causal_varlen_attention(query, key, value, offsets, 150, SCALE)
