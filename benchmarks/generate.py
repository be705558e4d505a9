"""Tokens a second of offline generation; higher is better.

256 prompts of 16 to 256 tokens, replies of 8 to 256, 8 million parameters; the length of a reply is drawn once and the
same for all. Both in bf16 where that is faster. With --peer, transformers' generate does the same in batches of 32.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks._training import VOCABULARY, Peer, Row, Shape, compare, own, own_peer, policy_folder
from training.data.chat_format import SPECIAL
from training.engine import Engine, EngineRequest, SamplingParams
from training.kernels.heap import disable_malloc_trim
from training.models.compute import Compute, bf16_is_faster
from training.models.loading import load_causal, load_tokenizer

SHAPE = Shape(hidden=256, mlp=704, layers=5, heads=4)  # 8.2 million parameters
PROMPTS, SLOTS = 256, 64


def main(argv: Sequence[str]) -> None:
    compare("generate", own_peer("generate", __doc__, argv), measure, peer=transformers)


def work() -> list[tuple[list[int], int]]:
    """Each prompt's tokens, and how many tokens its reply has."""
    rng = np.random.default_rng(1)
    return [
        (rng.integers(len(SPECIAL), VOCABULARY, int(rng.integers(16, 257))).tolist(), int(rng.integers(8, 257)))
        for _ in range(PROMPTS)
    ]


def measure(scratch: Path) -> tuple[float, float, Row]:
    disable_malloc_trim()
    folder = str(policy_folder(scratch / "model", SHAPE))
    cpu = torch.device("cpu")
    dtype = torch.bfloat16 if bf16_is_faster(cpu, SHAPE.hidden) else torch.float32
    engine = Engine(
        load_causal(folder, Compute(cpu, dtype)),
        load_tokenizer(folder),
        slots=SLOTS,
        live=False,
    )
    requests = [
        EngineRequest(prompt, SamplingParams(max_new_tokens=length, seed=i, stop_ids=frozenset()))
        for i, (prompt, length) in enumerate(work())
    ]
    engine.generate(requests[:8])
    began = time.perf_counter()
    completions = engine.generate(requests)
    seconds = time.perf_counter() - began
    tokens = sum(len(completion.tokens) for completion in completions)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return tokens / seconds, peak, {"tokens": tokens, "slots": SLOTS, "dtype": str(dtype).removeprefix("torch.")}


def transformers(scratch: Path) -> Peer:
    folder = policy_folder(scratch / "model", SHAPE)
    return own("generate", str(folder), pattern=r"tok/s=([\d.]+)")
