"""What a compiled kernel refuses before it can read or write memory that is not its own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.kernels import amx, native, ops
from training.kernels.native import AMX_SOURCE, SOURCE, Library
from training.kernels.signatures import read_signatures

DECLARED = """extern "C" Status scale(const float *x /* rows * width */, Int rows, Int width,
    T *out /* null or rows * width */, int threads) {"""


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def library(request: pytest.FixtureRequest) -> Library:
    compiled = native.library(request.param)
    if compiled is None:
        pytest.skip("there are no compiled kernels here: no C++ compiler with OpenMP, or TUTELAGE_KERNELS=0")
    return compiled


def declare(tmp_path: Path, text: str) -> Path:
    source = tmp_path / "kernels.cpp"
    source.write_text(text)
    return source


def test_every_function_that_returns_a_status_is_read_from_the_source() -> None:
    for source in (SOURCE, AMX_SOURCE):
        text = source.read_text(encoding="utf-8")
        assert len(read_signatures(source)) == text.count('extern "C" Status') > 0
        assert 'extern "C" void' not in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" /* rows * width */", "", "does not say how many numbers x points to"),
        ("rows * width", "rows * depth", "the size of x depends on depth"),
        ("const float *x", "const double *x", "cannot read"),
        ("Int rows", "int rows", "cannot read"),
    ],
)
def test_a_declaration_that_cannot_be_checked_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_signatures(declare(tmp_path, DECLARED.replace(old, new, 1)))


def test_a_signature_takes_what_is_declared(tmp_path: Path) -> None:
    scale = read_signatures(declare(tmp_path, DECLARED))["scale"]
    x, out = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bfloat16)
    assert scale.checked([x, 2, 3, out], torch.bfloat16) == [x.data_ptr(), 2, 3, out.data_ptr()]
    assert scale.checked([x, 2, 3, None], torch.bfloat16) == [x.data_ptr(), 2, 3, None]


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([X.double(), 2, 3, None], "x is torch.float64, not torch.float32"),
        ([X.long(), 2, 3, None], "x is torch.int64"),
        ([X.to("meta"), 2, 3, None], "x is on meta"),
        ([torch.zeros(3, 2).t(), 2, 3, None], "x is not contiguous"),
        ([X[:, :2], 2, 3, None], "x has 4 numbers, not 6"),
        ([X, 2, 4, None], "x has 6 numbers, not 8"),
        ([X, -2, -3, None], "rows is -2"),
        ([None, 2, 3, None], "x is missing"),
        ([X.tolist(), 2, 3, None], "x is a list"),
        ([(ctypes.c_int32 * 6)(), 2, 3, None], "x is a c_int"),
        ([X, 2, 3, X], "out is torch.float32, not torch.bfloat16"),
        ([X, 2, 3], "takes 4 arguments, got 3"),
    ],
)
def test_arguments_that_would_corrupt_memory_are_refused(tmp_path: Path, arguments: list[object], message: str) -> None:
    scale = read_signatures(declare(tmp_path, DECLARED))["scale"]
    with pytest.raises(ValueError, match=message):
        scale.checked(arguments, torch.bfloat16)


@pytest.mark.parametrize("target", [-1, 5, 2**40])
def test_a_target_outside_the_vocabulary_is_an_error(library: Library, target: int) -> None:
    logits, targets = torch.zeros(3, 5, dtype=library.dtype), torch.tensor([0, target, 1])
    with pytest.raises(IndexError, match="logprobs_from_logits: an index is out of range"):
        ops.logprobs_from_logits(logits, targets, 1.0, entropy=False)
    statistics = ops.LogitStatistics(*torch.zeros(3, 3).unbind())
    with pytest.raises(IndexError):
        ops.logprobs_from_logits_backward(logits, targets, statistics, torch.zeros(3), None, 1.0)
    assert not logits.any()


def empty_pages(library: Library) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values: three pages of two tokens, two heads of four numbers."""
    keys, values = torch.zeros(2, 3, 2, 2, 4, dtype=library.dtype).unbind()
    return keys, values


@pytest.mark.parametrize(("position", "page"), [(-1, 0), (6, 0), (2**40, 0), (3, 3), (3, -1), (3, 2**40)])
def test_a_place_outside_the_pages_is_an_error(library: Library, position: int, page: int) -> None:
    heads = ops.HeadLayout(4, 2, 1e-5)
    places = ops.Places(torch.tensor([0, position]), torch.tensor([[0, 1, 2], [0, page, 0]]), 6)
    joined = torch.zeros(2, 8, 4, dtype=library.dtype)
    angles = torch.zeros(9, 2)
    with pytest.raises(IndexError, match="append_kv"):
        ops.append_kv(joined, heads, None, angles, angles, places, *empty_pages(library))
    with pytest.raises(IndexError, match="decode_attention"):
        ops.decode_attention(joined, heads, *empty_pages(library), places, 1.0)


def test_a_position_beyond_the_rotations_is_an_error(library: Library) -> None:
    joined = torch.zeros(1, 8, 4, dtype=library.dtype)
    angles, places = torch.zeros(4, 2), ops.Places(torch.tensor([5]), torch.tensor([[0, 1, 2]]), 6)
    with pytest.raises(IndexError):
        ops.append_kv(joined, ops.HeadLayout(4, 2, 0.0), None, angles, angles, places, *empty_pages(library))


def test_pages_that_reach_beyond_their_memory_are_refused(library: Library) -> None:
    keys, values = empty_pages(library)[0], torch.zeros(2, 2, 2, 4, dtype=library.dtype)
    joined = torch.zeros(1, 8, 4, dtype=library.dtype)
    angles, places = torch.zeros(4, 2), ops.Places(torch.tensor([0]), torch.tensor([[0]]), 1)
    with pytest.raises(ValueError, match="values has room for 32 numbers, not 48"):
        ops.append_kv(joined, ops.HeadLayout(4, 2, 0.0), None, angles, angles, places, keys, values)


def test_sizes_that_do_not_go_together_are_refused(library: Library) -> None:
    keys, values = empty_pages(library)
    angles = torch.zeros(9, 2)
    two_rows = torch.zeros(2, 8, 4, dtype=library.dtype)  # of a table of one
    places = ops.Places(torch.zeros(1).long(), torch.zeros(1, 3).long(), 1)
    with pytest.raises(ValueError, match="positions has 1 numbers, not 2"):
        ops.append_kv(two_rows, ops.HeadLayout(4, 2, 0.0), None, angles, angles, places, keys, values)
    overlapping = keys.as_strided((3, 2, 2, 4), (8, 8, 4, 1))
    with pytest.raises(ValueError, match="sizes do not go together"):
        ops.append_kv(two_rows[:1], ops.HeadLayout(4, 2, 0.0), None, angles, angles, places, overlapping, values)
    three_heads = torch.zeros(1, 7, 4, dtype=library.dtype)  # of two heads of keys
    with pytest.raises(ValueError, match="sizes do not go together"):
        ops.decode_attention(three_heads, ops.HeadLayout(3, 2, 0.0), keys, values, places, 1.0)
    with pytest.raises(ValueError, match="sizes do not go together"):
        ops.sample_tokens(torch.zeros(2, 0, dtype=library.dtype), torch.ones(2), torch.zeros(2))


def test_heads_that_do_not_lie_side_by_side_are_refused(library: Library) -> None:
    angles = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="side by side"):
        ops.apply_rotary(torch.zeros(2, 4, 8, dtype=library.dtype)[..., :4], angles, angles, 4)
    with pytest.raises(ValueError, match="side by side"):
        ops.apply_rotary(torch.zeros(2, 4, 4, dtype=library.dtype), angles, angles, 5)


def amx_tensors() -> Iterator[Tensor]:
    yield from torch.zeros(8, 6, 4, dtype=torch.bfloat16).split([2, 2, 2], dim=1)


def test_amx_takes_bfloat16_of_matching_shapes_alone() -> None:
    query, key, value = amx_tensors()
    if (compiled := amx.amx_kernels(query)) is None:
        pytest.skip("this processor has no AMX, or there are no compiled kernels")
    for other, message in [
        (value.float(), "takes bfloat16 on the CPU, got torch.float32"),
        (value[:7], "goes with neither"),
        (value.transpose(1, 2).contiguous().transpose(1, 2), "side by side"),
    ]:
        with pytest.raises(ValueError, match=message):
            amx.amx_attention_forward(compiled, query, key, other, [(1, 8)], 1.0)
    for blocks in ([(1, 7)], [(8, 0), (1, 8)], [(-1, 8), (2, 8)]):
        with pytest.raises(ValueError, match=r"do not make up the row|do not go together"):
            amx.amx_attention_forward(compiled, query, key, value, blocks, 1.0)


# ---------------------------------------------------------------------------------------------------- the cache folder


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return native.cache_folder()


def test_the_cache_folder_is_private(cache: Path) -> None:
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_cache_folder_that_others_can_write_to_is_not_used(cache: Path) -> None:
    cache.chmod(0o770)
    with pytest.raises(PermissionError, match=f"chmod 700 {cache}"):
        native.cache_folder()


def test_the_cache_folder_of_another_user_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = cache.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        native.cache_folder()


def test_amx_can_be_left_out(cache: Path, monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    monkeypatch.setenv("TUTELAGE_KERNELS", "no-amx")
    portable = Library(native.compiled_library(native.NUMBERS[library.dtype]), library.dtype)
    assert not portable.has_amx
    assert set(portable.functions) == set(read_signatures(SOURCE))
