"""Each compiled kernel against its form in torch, and what happens if there is no compiler."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.kernels import native, ops

DTYPES = [torch.float32, torch.bfloat16]
NEAR = {torch.float32: 2e-6, torch.bfloat16: 1e-2}  # of the largest entry
PROJECT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if native.library(torch.float32) is None:
        pytest.skip("there are no compiled kernels here: no C++ compiler with OpenMP, or TUTELAGE_KERNELS=0")


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def flat(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return [] if found is None else [x for part in found for x in flat(part)]


def assert_alike(monkeypatch: pytest.MonkeyPatch, compute: Callable[[], Any], near: float) -> None:
    compiled = flat(compute())
    with monkeypatch.context() as patch:
        patch.setattr(ops, "kernels_for", lambda *_: None)
        by_torch = flat(compute())
    assert len(compiled) == len(by_torch)
    for one, other in zip(compiled, by_torch, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert float((one.float() - other.float()).abs().max()) <= near * float(other.float().abs().max())


SIZES = [(1, 5), (3, 16), (37, 48), (64, 130)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_norms_and_their_gradients(
    monkeypatch: pytest.MonkeyPatch, random: torch.Generator, dtype: torch.dtype, rows: int, width: int
) -> None:
    x, past = torch.randn(2, rows, width, generator=random).unbind()
    weight, bias = torch.randn(2, width, generator=random).unbind()
    more = torch.randn(rows, width, generator=random).to(dtype)
    near = NEAR[dtype]
    assert_alike(monkeypatch, lambda: ops.rms_norm(x, weight, 1e-5, dtype), near)
    assert_alike(monkeypatch, lambda: ops.residual_add(x, more, bias), near)
    assert_alike(monkeypatch, lambda: ops.add_rms_norm(x, more, None, weight, 1e-5), near)
    inverse = ops.rms_norm(x, weight, 1e-5, dtype).inverse
    for before in (past, None):
        for learns in (True, False):
            assert_alike(
                monkeypatch,
                lambda before=before, learns=learns: ops.rms_norm_backward(before, more, x, inverse, weight, learns),  # type: ignore[misc]
                max(near, 1e-5),
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_swiglu_and_its_gradient(
    monkeypatch: pytest.MonkeyPatch, random: torch.Generator, dtype: torch.dtype, rows: int, width: int
) -> None:
    joined = (5 * torch.randn(rows, 2 * width, generator=random)).to(dtype)
    grad = torch.randn(rows, width, generator=random).to(dtype)
    assert_alike(monkeypatch, lambda: ops.swiglu(joined), NEAR[dtype])
    assert_alike(monkeypatch, lambda: ops.swiglu_backward(grad.clone(), joined), NEAR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_are_turned_and_turned_back(
    monkeypatch: pytest.MonkeyPatch, random: torch.Generator, dtype: torch.dtype
) -> None:
    x = torch.randn(11, 9, 16, generator=random).to(dtype)
    angle = torch.randn(11, 8, generator=random)

    def there_and_back() -> tuple[Tensor, Tensor]:
        there = x.clone()
        ops.apply_rotary(there, angle.cos(), angle.sin(), 6)
        back = there.clone()
        ops.apply_rotary(back, angle.cos(), angle.sin(), 6, back=True)
        return there, back

    assert_alike(monkeypatch, there_and_back, NEAR[dtype])
    there, back = there_and_back()
    assert torch.equal(there[:, 6:], x[:, 6:])
    assert float((back - x).abs().max()) < 4 * NEAR[dtype] * float(x.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("groups", "length"), [(1, 1), (2, 40), (1, 70)])
def test_attention_weights_and_their_gradients(
    monkeypatch: pytest.MonkeyPatch, random: torch.Generator, dtype: torch.dtype, groups: int, length: int
) -> None:
    scores, grads = torch.randn(2, 6, groups * length, length, generator=random).to(dtype).unbind()
    later = torch.ones(length, length, dtype=torch.bool).triu(1).repeat(groups, 1)
    log_sums = (0.3 * scores.float()).masked_fill(later, float("-inf")).logsumexp(-1)

    def both() -> tuple[Tensor, Tensor]:
        weights, change = scores.clone(), grads.clone()
        ops.causal_softmax_backward(weights, change, log_sums, length, 0.3)
        return weights, change

    assert_alike(monkeypatch, both, max(NEAR[dtype], 1e-5))
    weights, _ = both()
    assert bool((weights[:, later] == 0).all())
    assert torch.allclose(weights.float().sum(-1), torch.ones(6, groups * length), atol=2 * NEAR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entropy", [True, False])
def test_what_is_read_from_logits_and_its_gradient(
    monkeypatch: pytest.MonkeyPatch, random: torch.Generator, dtype: torch.dtype, entropy: bool
) -> None:
    logits = (4 * torch.randn(23, 301, generator=random)).to(dtype)
    targets = torch.randint(0, 301, (23,), generator=random)
    d_logprobs, d_entropies = torch.randn(2, 23, generator=random).unbind()
    assert_alike(monkeypatch, lambda: ops.logprobs_from_logits(logits, targets, 0.7, entropy=entropy), 1e-5)
    found = ops.logprobs_from_logits(logits, targets, 0.7, entropy=True)

    def backward() -> Tensor:
        change = logits.clone()
        ops.logprobs_from_logits_backward(change, targets, found, d_logprobs, d_entropies if entropy else None, 0.7)
        return change

    assert_alike(monkeypatch, backward, max(NEAR[dtype], 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_new_token_finds_its_page_and_sees_its_own_sequence(
    monkeypatch: pytest.MonkeyPatch, random: torch.Generator, dtype: torch.dtype, normed: bool, rows: int
) -> None:
    heads, positions = ops.HeadLayout(4, 2, 1e-5), torch.tensor([9, 3, 0, 5, 2])[:rows]
    table = torch.tensor([[3, 0, 6], [1, 1, 1], [2, 2, 2], [5, 4, 5], [7, 7, 7]])[:rows]
    joined = torch.randn(rows, 8, 16, generator=random).to(dtype)
    cache = torch.randn(9, 2, 2, 4, 16, generator=random).to(dtype)  # pages of four tokens, keys beside values
    norms = torch.rand(6, 16, generator=random) if normed else None
    cosine, sine = torch.rand(2, 12, 8, generator=random).unbind()

    def token() -> tuple[Tensor, ...]:
        new, pages = joined.clone(), cache.clone()
        keys, values = pages.unbind(1)
        places = ops.Places(positions, table, int(positions.max()) + 1)
        ops.append_kv(new, heads, norms, cosine, sine, places, keys, values)
        return new, pages, ops.decode_attention(new, heads, keys, values, places, 0.25)

    assert_alike(monkeypatch, token, max(NEAR[dtype], 1e-5))
    _, pages, attended = token()
    keys, values = (pages[table[0], i, 1].flatten(0, 1)[:10].float() for i in (0, 1))
    query = token()[0][0, 3].float()  # the last query head, which sees the second key head
    shares = (keys @ query * 0.25).softmax(0)
    torch.testing.assert_close(attended[0, -16:].float(), shares @ values, atol=2e-2, rtol=2e-2)
    untouched = torch.ones(9, dtype=torch.bool)
    untouched[torch.tensor([6, 1, 2, 4, 7])[:rows]] = False
    assert torch.equal(pages[untouched], cache[untouched])


# ------------------------------------------------------------------------------------------------------------- drawing


def drawn(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = ops.sample_tokens(logits, torch.full((len(logits),), temperature), uniform)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_come_as_often_as_their_probabilities_say(random: torch.Generator, dtype: torch.dtype) -> None:
    one = (2 * torch.randn(700, generator=random)).to(dtype)
    count = 100_000
    uniform = (torch.arange(count) + 0.5) / count
    tokens, logprobs, log_sums = drawn(one.expand(count, -1).contiguous(), 0.7, uniform)
    assert torch.equal(tokens, tokens.sort().values)  # the cumulative sum, inverted
    often = torch.bincount(tokens, minlength=700) / count
    assert float((often - (one.float() / 0.7).softmax(-1)).abs().max()) < 2 / count
    log_p = one.float().log_softmax(-1)
    assert torch.allclose(logprobs, log_p[tokens], atol=1e-5)
    assert torch.allclose(log_sums, one.float().logsumexp(-1).expand(count), atol=1e-5)


def test_temperature_zero_takes_the_first_of_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0]])
    assert drawn(logits, 0.0, torch.tensor([0.99]))[0].tolist() == [1]


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.full((3, 600), float("-inf"))
    logits[:, 300] = 0.0
    uniform = torch.tensor([0.0, 0.5, 1 - 2.0**-24])
    assert drawn(logits, 1.0, uniform)[0].tolist() == [300] * 3


def test_numbers_that_are_not_finite_are_told_by_the_log_sum() -> None:
    logits = torch.zeros(2, 600)
    logits[1, 5] = float("nan")
    tokens, _, log_sums = drawn(logits, 1.0, torch.tensor([0.5, 0.5]))
    assert log_sums.isfinite().tolist() == [True, False]
    assert 0 <= int(tokens[1]) < 600


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_not_lost(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 40)
    x[1, 3] = float("nan")
    assert ops.rms_norm(x, torch.ones(40), 1e-5, dtype).out.isnan().any(-1).tolist() == [False, True]
    assert ops.swiglu(x.to(dtype)).isnan().any(-1).tolist() == [False, True]
    assert ops.logprobs_from_logits(
        x.to(dtype), torch.tensor([0, 0]), 1.0, entropy=False
    ).logprobs.isnan().tolist() == [
        False,
        True,
    ]


# ------------------------------------------------------------------------------------------------------------ building


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache folder, and nothing remembered of what was compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path / "tutelage"
    native.library.cache_clear()


def test_they_are_compiled_once_and_found_by_the_next_process(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = native.compiled_library("float")
    assert [path.name for path in fresh.iterdir()] == [first.name]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert native.compiled_library("float") == first


def test_without_a_compiler_torch_computes_and_the_log_says_so(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, random: torch.Generator
) -> None:
    x = torch.randn(4, 12, generator=random)
    wanted = ops.swiglu(x)
    native.library.cache_clear()
    for path in fresh.iterdir():
        path.unlink()
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with caplog.at_level(logging.WARNING):
        found = ops.swiglu(x)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert "without compiled kernels" in caplog.text
    assert ops.sample_tokens(x, torch.ones(4), torch.zeros(4)) is None


def test_source_that_does_not_compile_leaves_nothing_behind(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "kernels.cpp"
    broken.write_text("this is not C++")
    monkeypatch.setattr(native, "SOURCE", broken)
    assert native.library(torch.float32) is None
    assert list(fresh.iterdir()) == []
