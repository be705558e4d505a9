"""Keys and values of the sequences under way, one slot a sequence."""

from __future__ import annotations

import torch
from torch import Tensor


class SlotCache:
    """For each layer keys and values [slots, heads, capacity, head_dim], and one additive mask [slots, capacity] for
    all.

    The running sequences sit in slots 0..n-1, so a decoding step reads views and copies nothing. Memory that no
    sequence has reached stays untouched. The buffers start as zeros, not as whatever memory held: a masked place has
    weight zero, and zero times NaN would be NaN.
    """

    def __init__(self, slots: int, capacity: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self.slots = slots
        self.capacity = capacity
        self.dtype = dtype
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.bias = torch.full((slots, capacity), float("-inf"), device=device, dtype=dtype)
        self.rows = torch.arange(slots, device=device)

    def reserve(self, capacity: int) -> None:
        """Make room for sequences of `capacity` tokens."""
        if capacity <= self.capacity:
            return
        extra = capacity - self.capacity
        self.bias = torch.nn.functional.pad(self.bias, (0, extra), value=float("-inf"))
        for buffers in (self.keys, self.values):
            for i, old in enumerate(buffers):
                buffers[i] = old.new_zeros(old.shape[0], old.shape[1], capacity, old.shape[3])
                buffers[i][:, :, : self.capacity] = old
        self.capacity = capacity

    def clear(self) -> None:
        """Forget everything, NaN included."""
        self.keys.clear()
        self.values.clear()
        self.bias = torch.full(self.bias.shape, float("-inf"), device=self.bias.device, dtype=self.dtype)

    def begin(self, slots: Tensor, lengths: Tensor) -> None:
        """Slots [m] now hold prompts of `lengths` [m] tokens."""
        places = torch.arange(self.capacity, device=self.bias.device)
        blank = torch.zeros(len(slots), self.capacity, device=self.bias.device, dtype=self.dtype)
        self.bias[slots] = blank.masked_fill_(places >= lengths[:, None], float("-inf"))

    def fill(self, layer: int, slots: Tensor, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put prompts' keys and values [n, heads, T, head_dim] in `slots` [m], slot i taking row rows[i]."""
        if layer == len(self.keys):
            for buffers, new in ((self.keys, keys), (self.values, values)):
                shape = (self.slots, new.shape[1], self.capacity, new.shape[3])
                buffers.append(new.new_zeros(shape, dtype=self.dtype))
        self.keys[layer][slots, :, : keys.shape[2]] = keys[rows].to(self.dtype)
        self.values[layer][slots, :, : values.shape[2]] = values[rows].to(self.dtype)

    def advance(self, positions: Tensor) -> None:
        """The first n slots are about to write at `positions` [n]."""
        self.bias[self.rows[: len(positions)], positions] = 0.0

    def append(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put the first n slots' new keys and values [n, heads, head_dim] at `positions` [n]."""
        rows = self.rows[: len(positions)]
        self.keys[layer][rows, :, positions] = keys
        self.values[layer][rows, :, positions] = values

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the `length` tokens of one slot to another."""
        self.bias[target] = self.bias[source]
        for buffers in (self.keys, self.values):
            for buffer in buffers:
                buffer[target, :, :length] = buffer[source, :, :length]
