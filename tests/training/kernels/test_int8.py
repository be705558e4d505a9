"""Matrices in 8 bits."""

from __future__ import annotations

import pytest
import torch

from training.kernels import native
from training.kernels.int8 import MANY, can_multiply_int8, dequantize_int8, int8_linear, quantize_int8

needs_kernels = pytest.mark.skipif(not can_multiply_int8(), reason="there are no compiled kernels here")


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_each_number_is_off_by_half_a_step_at_most_and_the_largest_of_a_row_not_at_all(random: torch.Generator) -> None:
    weight = torch.randn(21, 33, generator=random)
    rounded = dequantize_int8(quantize_int8(weight))
    steps = weight.abs().amax(1) / 127
    assert bool(((rounded - weight).abs() <= steps[:, None] * 0.5001).all())
    largest = weight.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(rounded.gather(1, largest), weight.gather(1, largest))


def test_a_row_of_zeros_stays_one() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    assert dequantize_int8(quantize_int8(weight))[0].tolist() == [0.0, 0.0]


@needs_kernels
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 16, 23, MANY])
@pytest.mark.parametrize(("outputs", "width"), [(5, 3), (16, 48), (130, 33), (300, 64)])
def test_the_product_is_that_of_the_rounded_matrix(
    random: torch.Generator, rows: int, outputs: int, width: int
) -> None:
    matrix = quantize_int8(torch.randn(outputs, width, generator=random))
    x = torch.randn(rows, width, generator=random)
    expected = x.double() @ dequantize_int8(matrix).double().t()
    torch.testing.assert_close(int8_linear(x, matrix).double(), expected, rtol=1e-5, atol=1e-4)


@needs_kernels
def test_a_row_gives_the_same_to_the_last_bit_in_any_company_and_number_of_threads(random: torch.Generator) -> None:
    matrix = quantize_int8(torch.randn(130, 48, generator=random))
    x = torch.randn(MANY - 1, 48, generator=random)
    together, threads = int8_linear(x, matrix), torch.get_num_threads()
    for rows in (1, 2, 5, 9, 17):
        assert torch.equal(int8_linear(x[:rows], matrix), together[:rows])
    try:
        torch.set_num_threads(3)
        assert torch.equal(int8_linear(x, matrix), together)
    finally:
        torch.set_num_threads(threads)


@needs_kernels
def test_a_matrix_with_too_few_panels_is_refused() -> None:
    compiled = native.library(torch.float32)
    assert compiled is not None
    matrix = quantize_int8(torch.ones(32, 4))
    x, out = torch.ones(1, 4), torch.empty(1, 32)
    with pytest.raises(ValueError, match="sizes do not go together"):
        compiled.call("int8_linear", x, matrix.panels[:1], matrix.scales, 1, 4, 32, 1, out)
    with pytest.raises(ValueError, match="panels has 64 numbers, not 128"):
        compiled.call("int8_linear", x, matrix.panels[:1], matrix.scales, 1, 4, 32, 2, out)
