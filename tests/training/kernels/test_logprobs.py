"""Log-probabilities and entropies from hidden states, against the logits themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.narrowing import existing
from training.kernels import logprobs
from training.kernels.logprobs import TokenLogprobs, logprobs_from_hidden
from training.kernels.native import SWITCH

ROWS, WIDTH, VOCABULARY = 23, 16, 50


@pytest.fixture(autouse=True, params=[0, 18, ROWS], ids=lambda kept: f"{kept} kept")
def kept(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """Of how many positions the logits are kept. They are computed for nine at once."""
    positions: int = request.param
    monkeypatch.setattr(logprobs, "positions_at_once", lambda *_: 9)
    monkeypatch.setattr(logprobs, "positions_kept", lambda *_: positions)
    return positions


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=draw, dtype=dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw, dtype=dtype)
    bias = torch.randn(VOCABULARY, generator=draw, dtype=dtype)
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=draw)
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), targets


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
def test_values_and_gradients_are_those_of_the_logits(scale: float, with_bias: bool, entropy_weight: float) -> None:
    grad = torch.randn(ROWS, generator=torch.Generator().manual_seed(1))
    found, wanted = list[torch.Tensor](), list[torch.Tensor]()
    for kept, slow in ((found, False), (wanted, True)):
        hidden, weight, bias, targets = inputs()
        head = bias if with_bias else None
        if slow:
            logits = scale * torch.nn.functional.linear(hidden, weight, head)
            log_p = logits.log_softmax(-1)
            chosen, entropy = log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
        else:
            chosen, entropy = logprobs_from_hidden(
                hidden, weight, head, targets, scale, entropy=True, entropy_gradient=bool(entropy_weight)
            )
        ((chosen * grad).sum() + entropy_weight * entropy.sum()).backward()
        kept += [
            chosen,
            entropy,
            existing(hidden.grad),
            existing(weight.grad),
            *([existing(bias.grad)] if with_bias else []),
        ]
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_only_the_entropy_may_be_learned_from() -> None:
    hidden, weight, _, targets = inputs()
    read = logprobs_from_hidden(hidden, weight, None, targets, 1.0, entropy=True, entropy_gradient=True)
    read.entropy.sum().backward()
    mine = existing(hidden.grad).clone()
    hidden.grad = None
    log_p = torch.nn.functional.linear(hidden, weight).log_softmax(-1)
    (-(log_p.exp() * log_p).sum()).backward()
    assert torch.allclose(mine, existing(hidden.grad), atol=1e-5)


def test_logits_that_overflow_a_sum_of_exponentials_are_read() -> None:
    hidden, weight, _, targets = inputs()
    found = logprobs_from_hidden(hidden * 1000, weight, None, targets, 1.0, entropy=True)
    assert bool(torch.stack(found).isfinite().all())
    assert found.logprobs.max().item() <= 0


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_head_gives_hidden_states_the_gradient_of_one_that_learns(with_bias: bool, dtype: torch.dtype) -> None:
    grad = torch.randn(ROWS, generator=torch.Generator().manual_seed(1))
    found = list[TokenLogprobs]()
    gradients = list[Tensor]()
    for learns in (True, False):
        hidden, weight, bias, targets = inputs(dtype)
        weight.requires_grad_(learns)
        head = bias.requires_grad_(learns) if with_bias else None
        found.append(logprobs_from_hidden(hidden, weight, head, targets, 0.7, entropy=True))
        (found[-1].logprobs * grad).sum().backward()
        gradients.append(existing(hidden.grad))
        assert (weight.grad is not None) == learns
        assert not found[-1].entropy.requires_grad
    assert torch.equal(found[0].logprobs, found[1].logprobs)
    assert torch.equal(found[0].entropy, found[1].entropy)
    precise = 1e-6 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(*gradients, rtol=precise, atol=precise)


def test_a_second_backward_pass_finds_the_same_gradients() -> None:
    hidden, weight, bias, targets = inputs()
    loss = logprobs_from_hidden(hidden, weight, bias, targets, 1.0, entropy=False).logprobs.sum()
    first = torch.autograd.grad(loss, (hidden, weight, bias), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight, bias)), first)


def test_logits_that_are_kept_are_not_computed_again(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    computed = list[int]()
    product = logprobs.output_product

    def counting(hidden: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        computed.append(len(hidden))
        return product(hidden, weight, out)

    monkeypatch.setattr(logprobs, "output_product", counting)
    hidden, weight, _, targets = inputs()
    loss = logprobs_from_hidden(hidden, weight, None, targets, 1.0, entropy=False).logprobs.sum()
    assert sum(computed) == ROWS
    loss.backward()
    assert sum(computed) == 2 * ROWS - kept
    computed.clear()
    logprobs_from_hidden(hidden, weight.detach(), None, targets, 1.0, entropy=False).logprobs.sum().backward()
    assert sum(computed) == ROWS


def test_in_bf16_the_sums_are_float32() -> None:
    hidden, weight, _, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        half = logprobs_from_hidden(hidden, weight, None, targets, 1.0, entropy=False).logprobs
    whole = logprobs_from_hidden(hidden, weight, None, targets, 1.0, entropy=False).logprobs
    assert half.dtype == torch.float32
    assert torch.allclose(half, whole, atol=0.1)
    assert not torch.equal(half, whole)


def test_on_a_gpu_logits_of_bf16_operands_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = 20 * torch.randn(ROWS, WIDTH, generator=draw).bfloat16()
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw).bfloat16()
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=draw)
    exact = (hidden.float() @ weight.float().t()).log_softmax(-1).gather(1, targets[:, None])[:, 0]

    def error() -> float:
        ours = logprobs_from_hidden(hidden, weight, None, targets, 1.0, entropy=False).logprobs
        return float((ours - exact).abs().max())

    monkeypatch.setenv(SWITCH, "as-gpu")
    assert error() < 1e-3
    monkeypatch.setattr(logprobs, "gives_float32", lambda _: False)
    assert error() > 0.1


def test_gradients_through_float32_logits_are_those_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "as-gpu")
    hidden, weight, bias, targets = inputs(torch.bfloat16)
    found = logprobs_from_hidden(hidden, weight, bias, targets, 1.0, entropy=False).logprobs
    found.sum().backward()
    plain = [x.detach().float().requires_grad_() for x in (hidden, weight, bias)]
    logits = torch.nn.functional.linear(*plain)
    logits.log_softmax(-1).gather(1, targets[:, None]).sum().backward()
    for ours, wanted in zip((hidden, weight, bias), plain, strict=True):
        torch.testing.assert_close(existing(ours.grad).float(), existing(wanted.grad), rtol=0.05, atol=0.05)
