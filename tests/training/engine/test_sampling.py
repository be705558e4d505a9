"""Drawing tokens, on numbers worked out by hand and against slow, obvious forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.contract import TrainingError
from training.engine import SamplingParams, derive_seed, sampling
from training.engine.engine_request import uniforms
from training.engine.sampling import DrawSettings, draw_tokens, pick_tokens, tempered_logprobs, truncate
from training.kernels import ops

CPU = torch.device("cpu")


def drawn(logits: list[float], uniform: float, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> int:
    settings = DrawSettings.of([temperature], [top_k], [top_p], CPU)
    return int(draw_tokens(torch.tensor([logits]), settings, torch.tensor([uniform])))


def test_pick_inverts_the_cumulative_sum() -> None:
    weights = torch.tensor([[1.0, 2.0, 0.0, 1.0]]).expand(6, 4)  # borders at 0.25, 0.75, 0.75, 1
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.99999])
    assert pick_tokens(weights, uniform).tolist() == [0, 0, 1, 1, 3, 3]


def test_pick_never_takes_a_weight_of_zero_at_either_end() -> None:
    weights = torch.tensor([[0.0, 3.0, 0.0], [0.0, 1e-30, 0.0]])
    for number in (0.0, 1.0 - 2.0**-24):
        assert pick_tokens(weights, torch.tensor([number, number])).tolist() == [1, 1]


def test_temperature_zero_takes_the_likeliest_whatever_the_number() -> None:
    assert {drawn([0.0, 2.0, 1.9], u, temperature=0.0) for u in (0.0, 0.5, 0.99)} == {1}


def test_temperature_divides_the_logits() -> None:
    # at temperature 2 logits 0 and 2 ln 3 have odds 1 : 3, so the border is at 1/4
    logits = [0.0, 2 * 1.0986123]
    assert [drawn(logits, u, temperature=2.0) for u in (0.249, 0.251)] == [0, 1]


def test_top_k_keeps_the_k_likeliest() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().tolist()
    assert {drawn(logits, u / 100, top_k=2) for u in range(100)} == {1, 3}
    assert {drawn(logits, u / 100, top_k=1) for u in range(100)} == {1}


def test_top_p_keeps_the_token_that_crosses_the_border() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().tolist()
    assert {drawn(logits, u / 100, top_p=0.39) for u in range(100)} == {1}
    assert {drawn(logits, u / 100, top_p=0.5) for u in range(100)} == {1, 3}
    assert {drawn(logits, u / 100, top_p=0.95) for u in range(100)} == {0, 1, 2, 3}


def test_top_p_counts_what_top_k_left() -> None:
    # of 0.4 and 0.3 the first holds 4/7, which is more than half
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().tolist()
    assert {drawn(logits, u / 100, top_k=2, top_p=0.55) for u in range(100)} == {1}


def slow_nucleus(weights: torch.Tensor, top_k: int, top_p: float) -> set[int]:
    order = sorted(range(len(weights)), key=lambda i: -float(weights[i]))[: top_k or None]
    total, kept, mass = sum(float(weights[i]) for i in order), set[int](), 0.0
    for i in order:
        if mass >= top_p * total and kept:
            break
        kept.add(i)
        mass += float(weights[i])
    return kept


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.3), (0, 0.999), (5, 1.0), (200, 0.7), (700, 0.99), (1, 0.1)])
def test_truncation_is_that_of_the_slow_form_on_wide_and_narrow_rows(top_k: int, top_p: float) -> None:
    generator = torch.Generator().manual_seed(top_k)
    spread = torch.tensor([0.01, 1.0, 6.0])[:, None]
    weights = (torch.randn(3, 700, generator=generator) * spread).softmax(-1)
    kept, tokens = truncate(weights, torch.tensor([top_k] * 3), torch.tensor([top_p] * 3), top_k, nucleus=top_p < 1)
    for row in range(3):
        found = {int(t) for t, w in zip(tokens[row], kept[row], strict=True) if w > 0}
        assert (
            len(found ^ slow_nucleus(weights[row], top_k, top_p)) <= 1
        )  # one token on the border may round either way


def test_rows_of_a_batch_keep_their_own_settings() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(5, 4)
    settings = DrawSettings.of([1.0, 0.0, 1.0, 1.0, 1.0], [0, 0, 1, 0, 2], [1.0, 1.0, 1.0, 0.1, 1.0], CPU)
    tokens = draw_tokens(logits, settings, torch.full((5,), 0.99))
    assert tokens.tolist() == [3, 1, 1, 1, 3]


def test_the_numbers_of_a_seed_are_a_stream_whose_beginning_does_not_depend_on_its_length() -> None:
    long, short = uniforms(7, 50_000), uniforms(7, 10)
    assert (long[:10] == short).all()
    assert (long != uniforms(8, 50_000)).mean() > 0.99
    assert 0 <= long.min() < 0.001
    assert 0.999 < long.max() < 1
    assert abs(long.mean() - 0.5) < 0.01


def test_seeds_depend_on_every_part_and_on_where_it_stands() -> None:
    seeds = {
        derive_seed(1, "a"),
        derive_seed("a", 1),
        derive_seed(1, "b"),
        derive_seed("1a"),
        derive_seed(2, "a"),
        derive_seed("\ud800"),
    }
    assert len(seeds) == 6
    assert derive_seed(1, "a") == derive_seed(1, "a")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": -1}, "temperature -1"),
        ({"top_p": 0}, "top_p 0"),
        ({"top_k": -2}, "top_k -2"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"stop": ("",)}, "stop string"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        SamplingParams(**settings)


@pytest.mark.parametrize("top_k", [0, 2])
def test_a_row_that_is_not_finite_is_told_by_its_log_sum_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, top_k: int
) -> None:
    monkeypatch.setattr(ops, "sample_tokens", lambda *_: None)
    logits = torch.zeros(2, 9)
    logits[1] = float("nan")
    half = torch.tensor([0.5, 0.5])
    settings = DrawSettings.of([1.0, 1.0], [top_k, top_k], [1.0, 1.0], CPU)
    tokens, _, log_sums = sampling.drawn(logits, settings, half)
    assert log_sums.isfinite().tolist() == [True, False]
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < 9


def test_tempered_log_probabilities_are_those_that_are_sampled_from() -> None:
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(3))
    temperature, tokens = torch.tensor([0.7, 0.0, 2.0]), torch.tensor([4, 0, 10])
    found = tempered_logprobs(logits, temperature, tokens)
    for row, (heat, token) in enumerate([(0.7, 4), (1.0, 0), (2.0, 10)]):
        assert found[row].item() == pytest.approx((logits[row] / heat).log_softmax(-1)[token].item(), abs=1e-6)
