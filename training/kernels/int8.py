"""Matrices whose numbers have 8 bits, for decoding on CPUs, which waits for weights to come from memory.

A quarter of the bytes of float32. Only weights are rounded: each row of a matrix to whole numbers from -127 to 127
times a float32 scale. Inputs, products and sums are float32.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.kernels.native import library
from training.kernels.ops import kernels_for

PANEL: Final = 16  # rows that lie side by side; as in kernels.cpp
MANY: Final = 64  # rows of inputs from which it pays to write the matrix out for the library's own product
LEVELS: Final = 127


class Int8Matrix(NamedTuple):
    """[out, in]. panels (ceil(out / 16), in, 16) int8, filled up with zeros; scales (out,) float32."""

    panels: Tensor
    scales: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.scales), self.panels.shape[1]


def can_multiply_int8() -> bool:
    """Whether there are compiled kernels. Without, `int8_linear` writes the matrix out each time, which is slow."""
    return library(torch.float32) is not None


def quantize_int8(weight: Tensor) -> Int8Matrix:
    """weight (out, in) rounded. The largest number of each row stays as it is."""
    numbers = weight.detach().float()
    largest = numbers.abs().amax(1)
    scales = torch.where(largest == 0, 1.0, largest) / LEVELS
    whole = (numbers / scales[:, None]).round_().to(torch.int8)
    whole = F.pad(whole, (0, 0, 0, -len(whole) % PANEL))
    return Int8Matrix(whole.view(-1, PANEL, whole.shape[1]).transpose(1, 2).contiguous(), scales)


def dequantize_int8(matrix: Int8Matrix) -> Tensor:
    """(out, in) float32."""
    outputs, width = matrix.shape
    return matrix.panels.transpose(1, 2).reshape(-1, width)[:outputs].float().mul_(matrix.scales[:, None])


def int8_linear(x: Tensor, matrix: Int8Matrix) -> Tensor:
    """x (n, in) float32, dense, times the matrix transposed: (n, out). Below MANY rows, a row's outputs are the same to
    the last bit whatever the other rows are."""
    outputs, width = matrix.shape
    if len(x) < MANY and (compiled := kernels_for(x)):
        out = x.new_empty(len(x), outputs)
        compiled.call("int8_linear", x, *matrix, len(x), width, outputs, len(matrix.panels), out)
        return out
    return F.linear(x, dequantize_int8(matrix))
