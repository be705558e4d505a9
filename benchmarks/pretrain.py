"""Tokens per second of pretraining, in the precision that is faster on the machine: rows of 512 tokens, matrices as
many and as wide as those of nanochat's d4. Also of 10.2 million parameters, and the share of the matrix peak, measured
in the same run, that this is. Higher is better."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks._training import (
    VOCABULARY,
    Outcome,
    Row,
    arguments,
    compare,
    run_folder,
    run_stage,
    script,
    text,
    words,
)

LAYERS, CONTEXT = 4, 512
HIDDEN = 256  # as nanochat's d4, half of whose 11.5 million parameters are looked up, not multiplied
WIDE = 384  # 10.2 million parameters, all of them multiplied
DOCUMENTS, LENGTH, STEPS, BATCH_TOKENS = 400, 600, 24, 8192


def main(argv: Sequence[str]) -> None:
    options = arguments("pretrain", __doc__, argv)
    compare("pretrain", options, measure, peer=script(options, r"tok/s=([\d.]+)"))


def measure(scratch: Path) -> tuple[float, float, Row]:
    words().save_pretrained(scratch / "tokenizer")
    figure, _ = pretrained(scratch, HIDDEN)
    wide, outcome = pretrained(scratch, WIDE)
    peak = max(map(matrix_peak, (torch.float32, torch.bfloat16)))
    # Two for a product and a sum, three for the forward pass and the two products of the backward pass.
    parameters = outcome.result["model"]["parameters"]  # the output matrix is the embedding, and read once
    attention = LAYERS * CONTEXT * WIDE  # of a causal row, on average half of it, queries with keys and with values
    flops = 6 * (parameters + attention) * wide
    return figure, outcome.peak_gb, {
        f"width_{WIDE}": f"{wide:.0f}", "parameters": parameters, "peak_TFLOPs": f"{peak / 1e12:.3f}",
        "of_peak": f"{flops / peak:.3f}", "vocabulary": VOCABULARY,
    }  # fmt: skip


def pretrained(scratch: Path, hidden: int) -> tuple[float, Outcome]:
    """The median of tokens per second, and what came of it."""
    rng = np.random.default_rng(1)
    rows = [{"id": f"document:{i}", "text": text(rng, LENGTH)} for i in range(DOCUMENTS)]
    config = {
        "stage": "pretrain", "tokenizer": str(scratch / "tokenizer"), "layers": LAYERS, "hidden": hidden,
        "heads": hidden // 64, "context": CONTEXT, "batch_tokens": BATCH_TOKENS, "micro_tokens": BATCH_TOKENS,
        "max_steps": STEPS, "epochs": 10, "precision": "auto", "evaluate_every": 0, "checkpoint_every": 0,
    }  # fmt: skip
    outcome = run_stage("pretrain", run_folder(scratch / f"run-{hidden}", config, corpus=rows))
    return statistics.median(outcome.metrics("tokens_per_second")), outcome


def matrix_peak(dtype: torch.dtype, size: int = 2048, seconds: float = 3.0) -> float:
    """Floating-point operations a second of matrix products, the best of those of `seconds`."""
    a, b = (torch.randn(size, size, dtype=dtype) for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        for _ in range(4):
            torch.mm(a, b)
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - began))
    return best
