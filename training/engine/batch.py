"""The sequences that are generated together, and the pages in which they lie: who gets memory and who gives it back."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.engine.kv_cache import PagedCache, blocks_of
from training.engine.sequence import Running
from training.kernels.ops import Places

AHEAD: Final = 64  # tokens for which each sequence must have room before one more begins, or it would soon give way


class Batch:
    """Sequences in rows 0 to n - 1. Whoever is begun has pages for the tokens it has, and gets one more at a time; when
    there are none left, the youngest sequence gives its own back and is read again later."""

    def __init__(self, cache: PagedCache, slots: int, device: torch.device) -> None:
        self.cache = cache
        self.running: list[Running] = []
        self._slots = slots
        self._device = device
        self._table = np.zeros((slots, 1), dtype=np.int64)  # pages by row
        self._table_there: Tensor | None = None  # the same on the device
        self._scratch: list[int] = []  # the page of rows that belong to nobody
        self._begun = 0

    def admit(self, waiting: deque[Running], most_tokens: int) -> list[Running]:
        """Begin waiting sequences, in turn, as long as rows and pages are left and no more than `most_tokens` tokens
        have to be read. Those with the same tokens share whole pages. What can never fit ends."""
        memory = self.cache.memory
        if not memory.may_begin(self):
            return []
        admitted: list[Running] = []
        first: dict[tuple[int, ...], Running] = {}
        tokens = 0
        enough = True
        while waiting and len(self.running) < self._slots:
            sequence = waiting[0]
            ids = tuple(sequence.ids)
            tokens += 0 if ids in first else len(ids)
            if admitted and tokens > most_tokens:
                break
            enough = self._find_pages(sequence, first.get(ids))
            if not enough:
                break
            first.setdefault(ids, sequence)
            admitted.append(waiting.popleft())
            self._append(sequence)
        if enough:
            memory.leave_line(self)
        elif self.running or memory.used > self.cache.pages * self.cache.page_bytes:
            memory.stand_in_line(self)
        else:
            waiting.popleft().finish = "length"
        return admitted

    def make_room(self) -> list[Running]:
        """A page for each sequence's next token; those that had to give way for it, the youngest last. A sequence
        that finds no room in all the memory ends."""
        preempted: list[Running] = []
        for sequence in sorted(self.running, key=lambda sequence: sequence.age):
            while sequence.pages and blocks_of(sequence.length) > len(sequence.pages):
                if pages := self.cache.take(1):
                    sequence.pages += pages
                    self._write(self._row_of(sequence))
                    continue
                youngest = max(self.running, key=lambda sequence: sequence.age)
                alone = youngest is sequence and len(self.running) == 1
                self.remove(youngest)
                if alone and self.cache.memory.used <= self.cache.pages * self.cache.page_bytes:
                    youngest.finish = "length"
                else:
                    self.cache.memory.preemptions += 1
                preempted.insert(0, youngest)
        return preempted

    def remove(self, sequence: Running) -> None:
        """Take a sequence out; the last row takes its place."""
        row, last = self._row_of(sequence), self.running.pop()
        if last is not sequence:
            self.running[row] = last
            self._table[row] = self._table[len(self.running)]
        self._table_there = None
        self.cache.give_back(sequence.pages)
        sequence.pages = []

    def places(self, idle: int) -> Places:
        """Where the next tokens go, and `idle` rows more that belong to nobody."""
        n = len(self.running)
        if idle and not self._scratch:
            self._scratch = self.cache.take(1) or []
        if not self._scratch:
            idle = 0
        if self._table_there is None or len(self._table_there) != n + idle:
            if idle:
                self._table[n : n + idle] = self._scratch
            self._table_there = torch.from_numpy(self._table[: n + idle]).to(self._device)
        lengths = [sequence.length for sequence in self.running]
        positions = torch.tensor([*(length - 1 for length in lengths), *[0] * idle], device=self._device)
        return Places(positions, self._table_there, max(lengths))

    def shrink(self) -> None:
        """Give memory back that nobody needs now."""
        if not self.running and self._scratch:
            self.cache.give_back(self._scratch)
            self._scratch = []
        self.cache.shrink_if_idle()

    def clear(self) -> None:
        for sequence in self.running:
            sequence.pages = []
        self.running, self._scratch, self._table_there = [], [], None
        self.cache.clear()
        self.cache.memory.leave_line(self)

    def _find_pages(self, sequence: Running, twin: Running | None) -> bool:
        """Pages for the tokens that a sequence has, if there are enough for it and, for a while, for the others."""
        shared = twin.pages[: sequence.length // self.cache.page] if twin else []
        wanted = blocks_of(sequence.length) - len(shared)
        rows = [*self.running, sequence]
        left = self.cache.available() - wanted
        if self.running and left < len(rows) * blocks_of(AHEAD) and left < sum(map(pages_soon, rows)):
            return False
        own = self.cache.take(wanted)
        if own is None:
            return False
        self.cache.share(shared)
        sequence.pages = [*shared, *own]
        sequence.filled = len(shared) * self.cache.page
        return True

    def _append(self, sequence: Running) -> None:
        if not sequence.age:
            self._begun += 1
            sequence.age = self._begun
        self.running.append(sequence)
        self._write(len(self.running) - 1)

    def _write(self, row: int) -> None:
        pages = self.running[row].pages
        if len(pages) > self._table.shape[1]:
            wider = max(len(pages), 2 * self._table.shape[1]) - self._table.shape[1]
            self._table = np.pad(self._table, ((0, 0), (0, wider)), mode="edge")
        self._table[row] = pages[0]
        self._table[row, : len(pages)] = pages
        self._table_there = None

    def _row_of(self, sequence: Running) -> int:
        return next(row for row, other in enumerate(self.running) if other is sequence)


def pages_soon(sequence: Running) -> int:
    """How many pages more a sequence will want within the next tokens."""
    end = min(len(sequence.request.prompt) + sequence.room, sequence.length + AHEAD)
    return blocks_of(end) - (len(sequence.pages) or blocks_of(sequence.length))
