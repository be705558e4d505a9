"""Keys and values of the sequences under way, in pages of a few tokens."""

from __future__ import annotations

import heapq
import mmap
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from training.contract import TrainingError
from training.engine.kv_budget import KVBudget

PAGE: Final = 64  # tokens: of fewer, a CPU would wait for the next page more often than it reads ahead
NO_RESERVE: Final = 0x4000  # MAP_NORESERVE on Linux: what is never touched is no promise of memory


class LayerShape(NamedTuple):
    """Of one token: (heads, numbers a head)."""

    key: tuple[int, int]
    value: tuple[int, int]

    @property
    def numbers(self) -> int:
        return self.key[0] * self.key[1] + self.value[0] * self.value[1]


class Written(NamedTuple):
    """Which tokens of prompts that were read go where: m of them, [m] each."""

    rows: Tensor
    times: Tensor
    pages: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, spans: Iterable[Span], device: torch.device) -> Written:
        parts: list[list[np.ndarray]] = [[], [], [], []]
        for span in spans:
            times = np.arange(span.begin, span.end)
            pages = np.asarray(span.pages, dtype=np.int64)
            for part, values in zip(
                parts, (np.full_like(times, span.row), times, pages[times // PAGE], times % PAGE), strict=True
            ):
                part.append(values)
        return cls(*(torch.from_numpy(np.concatenate(part)).to(device) for part in parts))


class Span(NamedTuple):
    """Tokens `begin` to `end` of a prompt, which is row `row` of those that are read, and its pages."""

    row: int
    begin: int
    end: int
    pages: Sequence[int]


class Storage(Protocol):
    """For each layer keys and values [pages, heads, PAGE, head_dim]."""

    keys: list[Tensor]
    values: list[Tensor]

    def resize(self, pages: int) -> None:
        """Have memory for the first `pages` pages, whose content is kept."""


class MappedStorage:
    """Memory of a CPU: addresses for all pages from the start, memory for those that were written to. It is the
    system's and not the C library's, which would keep what is given back. A page holds all layers, so what is in use
    lies together."""

    def __init__(self, shapes: Sequence[LayerShape], dtype: torch.dtype, most_pages: int) -> None:
        numbers = PAGE * sum(shape.numbers for shape in shapes)
        self._page_bytes = numbers * dtype.itemsize
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (NO_RESERVE if hasattr(mmap, "MADV_DONTNEED") else 0)
        try:
            self._memory = mmap.mmap(-1, most_pages * self._page_bytes, flags=flags)
        except OSError as error:
            raise TrainingError(
                f"the system has no room for {most_pages * self._page_bytes / 1e9:.1f} GB of keys and values "
                f"({error.strerror}); set a lower limit",
                code="out_of_memory",
            ) from error
        if hasattr(mmap, "MADV_HUGEPAGE"):  # or every page of keys would be looked up anew
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        flat = torch.frombuffer(self._memory, dtype=dtype)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        begin = 0
        for shape in shapes:
            for views, (heads, width) in ((self.keys, shape.key), (self.values, shape.value)):
                strides = (numbers, PAGE * width, width, 1)
                views.append(flat.as_strided((most_pages, heads, PAGE, width), strides, begin))
                begin += PAGE * heads * width
        self._pages = 0

    def resize(self, pages: int) -> None:
        if pages < self._pages:
            begin = -(-pages * self._page_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            end = self._pages * self._page_bytes
            if end > begin:
                self._memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)
        self._pages = pages


class DeviceStorage:
    """Memory of a GPU, which is copied to grow and to shrink, one layer at a time. It starts as zeros: what lies behind
    a sequence's end is read and weighted with zero, and zero times NaN would be NaN."""

    def __init__(self, shapes: Sequence[LayerShape], dtype: torch.dtype, device: torch.device) -> None:
        self.keys, self.values = (
            [torch.zeros(0, heads, PAGE, width, dtype=dtype, device=device) for heads, width in layers]
            for layers in ([shape.key for shape in shapes], [shape.value for shape in shapes])
        )

    def resize(self, pages: int) -> None:
        for tensors in (self.keys, self.values):
            for i, old in enumerate(tensors):
                tensors[i] = old.new_zeros(pages, *old.shape[1:])
                kept = min(pages, len(old))
                tensors[i][:kept] = old[:kept]


class PagedCache:
    """Hands out pages, lowest first, and charges `memory` for those up to the highest that was handed out.

    A page may belong to several sequences whose tokens in it are the same. most_tokens: of all sequences together.
    """

    def __init__(self, memory: KVBudget, most_tokens: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.page: int = PAGE
        self.memory = memory
        self._device = device
        self._mapped = device.type == "cpu"
        self._most_pages = blocks_of(most_tokens)
        self.shapes: list[LayerShape] = []
        self._storage: Storage | None = None
        self._owners: list[int] = []  # how many sequences have a page, for each page that is charged
        self._free: list[int] = []  # a heap
        memory.join(self)

    @property
    def token_bytes(self) -> int:
        return sum(shape.numbers for shape in self.shapes) * self.dtype.itemsize

    @property
    def page_bytes(self) -> int:
        return PAGE * self.token_bytes

    @property
    def keys(self) -> list[Tensor]:
        return self._storage.keys if self._storage else []

    @property
    def values(self) -> list[Tensor]:
        return self._storage.values if self._storage else []

    @property
    def pages(self) -> int:
        """How many pages are charged."""
        return len(self._owners)

    def available(self) -> int:
        """How many pages could be handed out now."""
        return len(self._free) + min(self.memory.left // self.page_bytes, self._capacity() - self.pages)

    def take(self, count: int) -> list[int] | None:
        """That many pages, or None if they are not to be had."""
        missing = count - len(self._free)
        if missing > 0 and not self._grow(missing):
            return None
        pages = [heapq.heappop(self._free) for _ in range(count)]
        for page in pages:
            self._owners[page] = 1
        return pages

    def fill(self, layer: int, keys: Tensor, values: Tensor, written: Written) -> None:
        """Put prompts' keys and values [n, heads, T, head_dim] in their places."""
        for pages, new in ((self.keys[layer], keys), (self.values[layer], values)):
            pages[written.pages, :, written.offsets] = new[written.rows, :, written.times].to(self.dtype)

    def share(self, pages: Sequence[int]) -> None:
        """One more sequence has these pages."""
        for page in pages:
            self._owners[page] += 1

    def give_back(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._owners[page] -= 1
            if not self._owners[page]:
                heapq.heappush(self._free, page)

    def shrink(self) -> None:
        """Give the memory behind the last page in use back."""
        kept = len(self._owners)
        while kept and not self._owners[kept - 1]:
            kept -= 1
        if kept == len(self._owners):
            return
        self.memory.give_back((len(self._owners) - kept) * self.page_bytes)
        del self._owners[kept:]
        self._free = [page for page in self._free if page < kept]
        heapq.heapify(self._free)
        if kept and self._storage:
            self._storage.resize(kept)
        else:
            self._storage = None

    def shrink_if_idle(self) -> None:
        """`shrink` where that gives most of the memory back."""
        if len(self._free) == len(self._owners) or len(self._free) > 16 + 0.75 * len(self._owners):
            self.shrink()

    def clear(self) -> None:
        """Forget everything, NaN included."""
        self.memory.give_back(self.pages * self.page_bytes)
        self._owners, self._free, self._storage = [], [], None

    def _capacity(self) -> int:
        return len(self.keys[0]) if isinstance(self._storage, MappedStorage) else self._most_pages

    def _grow(self, count: int) -> bool:
        if self.pages + count > self._capacity():
            return False
        # What is copied to grow grows in large steps, while there is enough.
        large = max(count, min(self._capacity() - self.pages, self.pages // 2))
        for step in [count] if self._mapped else [large, count]:
            if self.memory.claim(step * self.page_bytes, self):
                break
        else:
            return False
        if self._storage is None:
            self._storage = self._new_storage()
        pages = self.pages + step
        self._storage.resize(pages)
        for page in range(self.pages, pages):
            heapq.heappush(self._free, page)
        self._owners += [0] * step
        return True

    def _new_storage(self) -> Storage:
        if not self._mapped:
            return DeviceStorage(self.shapes, self.dtype, self._device)
        most_pages = min(self._most_pages, max(1, self.memory.limit // self.page_bytes))
        return MappedStorage(self.shapes, self.dtype, most_pages)


def blocks_of(tokens: int) -> int:
    """How many pages hold that many tokens."""
    return -(-tokens // PAGE)
