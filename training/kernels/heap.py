"""What the C library does with memory that is free again, where it is glibc.

By default it gives large pieces back to the system, and every large tensor is then fresh pages, which the kernel
clears one by one: a third of a training step's time on a CPU. Kept pieces are used again instead; but since tensors
come in many sizes, some room lies idle between them, and more of it with every step.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, Final

import psutil

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
GROWTH: Final = 1.1  # by which a process may outgrow what a pass on a tidy heap needs
PASSES: Final = 3  # at least, between two times that memory is given back


@lru_cache(1)
def glibc() -> Any:
    """The C library with the functions that are called here, or None."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def disable_malloc_trim() -> None:
    """From now on, keep freed memory for later tensors."""
    if library := glibc():
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def trim_heap() -> None:
    """Give memory that is free back to the system now."""
    if library := glibc():
        library.malloc_trim(0)


class HeapTrimmer:
    """Gives idle memory back to the system when a process takes much more of it than its passes need."""

    def __init__(self) -> None:
        self.needed = 0  # resident after the first pass on a tidy heap, its activations' memory still kept
        self.passes = 0  # since then

    def maybe_trim(self) -> None:
        """For between two passes, when no activations are in use. What was given back and is touched again costs time:
        so only now and then."""
        now = resident()
        self.needed = self.needed or now
        self.passes += 1
        if glibc() and self.passes >= PASSES and now > GROWTH * self.needed:
            trim_heap()
            self.needed = self.passes = 0


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(psutil.Process().memory_info().rss)
