"""How much memory keys and values may take, shared by all engines of a process."""

from __future__ import annotations

import weakref
from typing import Protocol

import torch

from training.contract.memory import KV_SHARE
from training.models.memory import free_bytes


class Spender(Protocol):
    """A cache that takes from the budget."""

    def shrink(self) -> None:
        """Give back what no sequence uses."""


class KVBudget:
    """Bytes for keys and values. limit: the most; None for half of the memory that is free on `device`, measured anew
    by `measure`. The engines that share a budget are used by one thread."""

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        self._device = device
        self._fixed = limit
        self.limit = 0
        self.used = 0
        self.preemptions = 0  # sequences that gave their memory back and went on later
        self._spenders: weakref.WeakSet[Spender] = weakref.WeakSet()
        self._line: list[object] = []  # engines that wait for memory
        self.measure()

    def measure(self, at_least: int = 0) -> None:
        """Look again how much memory is free: models have come or gone. at_least: bytes without which nothing works."""
        if self._fixed is not None:
            self.limit = max(self._fixed, at_least)
        else:
            self.limit = max(int(KV_SHARE * (free_bytes(self._device) + self.used)), at_least)

    def join(self, spender: Spender) -> None:
        self._spenders.add(spender)

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    def claim(self, count: int, by: Spender) -> bool:
        """Take `count` bytes, if they are left; what others hold without use is taken from them."""
        if count > self.left:
            for spender in list(self._spenders):
                if spender is not by:
                    spender.shrink()
        if count > self.left:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        self.used -= count

    # Whoever has to wait for memory is first in line for what comes free: the others begin nothing new meanwhile.

    def may_begin(self, engine: object) -> bool:
        return not self._line or self._line[0] is engine

    def stand_in_line(self, engine: object) -> None:
        if engine not in self._line:
            self._line.append(engine)

    def leave_line(self, engine: object) -> None:
        if engine in self._line:
            self._line.remove(engine)
