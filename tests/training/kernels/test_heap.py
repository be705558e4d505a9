"""Freed memory is kept for later tensors, but not without bound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.kernels.heap import PASSES, glibc

PROJECT = Path(__file__).parents[3]
SCRIPT = """
import torch
from training.kernels.heap import PASSES, HeapTrimmer, disable_malloc_trim, resident
disable_malloc_trim()
heap = HeapTrimmer()

def learn(megabytes):
    kept = [torch.ones(1 << 18) for _ in range(megabytes)]
    last = torch.ones(1 << 10)  # so that what is freed does not lie at the end
    del kept
    heap.maybe_trim()
    return last, resident()

ends = [learn(50) for _ in range(PASSES)]
ends += [learn(200)]
ends += [learn(50) for _ in range(2 * PASSES)]
print(*(size for _, size in ends))
"""


@pytest.mark.skipif(glibc() is None, reason="the C library here is not glibc")
def test_memory_is_kept_from_pass_to_pass_and_given_back_when_more_is_held_than_passes_need() -> None:
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=PROJECT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=True,
    ).stdout  # fmt: skip
    sizes = list(map(int, told.split()))
    usual, after = sizes[:PASSES], sizes[PASSES:]
    a_pass = 50 << 20
    assert max(usual) - min(usual) < a_pass / 2  # kept
    assert after[0] < max(usual)  # the long pass outgrew them, and its memory was given back
    assert max(after[1:]) - min(after[1:]) < a_pass / 2  # and kept again from then on
