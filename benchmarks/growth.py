"""How the cost of learning grows, in microseconds a token (forward, backward, clipping and optimizer): with the tokens
of a pass, the length of its rows, the parameters, and the vocabulary. Lower is better.

From 16.9 million parameters, passes of 2,048 tokens and rows of 128, one thing changes at a time. --profile prints
where the time of such a pass goes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks._training import MIDDLE, VOCABULARY, Shape
from training.data.packing import TextBatch, text_batch
from training.kernels.heap import disable_malloc_trim
from training.models.compute import bf16_is_faster
from training.models.forward import Forward

TOKENS, LENGTH, STEPS = 2048, 128, 6
CPU = torch.device("cpu")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks growth", description=__doc__)
    parser.add_argument("--profile", action="store_true", help="print where the time goes in place of the figures")
    options = parser.parse_args(argv)
    disable_malloc_trim()
    if options.profile:
        Pass(MIDDLE).profile()
        return
    told = {f"tokens_{n}": Pass(MIDDLE, tokens=n).cost() for n in (512, 1024, 2048, 4096, 8192)}
    told |= {f"length_{n}": Pass(MIDDLE, length=n).cost() for n in (32, 128, 512, 1024)}
    for width in (192, 384, 768):
        one = Pass(replace(MIDDLE, hidden=width, mlp=width * 8 // 3, heads=width // 64))
        told[f"parameters_{one.parameters / 1e6:.1f}M"] = one.cost()
    told |= {f"vocabulary_{n}": Pass(MIDDLE, vocabulary=n).cost() for n in (2048, 8192, 32_768)}
    print("growth", " ".join(f"{name}={cost:.1f}" for name, cost in told.items()))


class Pass:
    """One forward and backward pass with its optimizer step, again and again on the same rows."""

    def __init__(
        self, shape: Shape, *, tokens: int = TOKENS, length: int = LENGTH, vocabulary: int = VOCABULARY
    ) -> None:
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=shape.hidden,
                intermediate_size=shape.mlp,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.heads,
                max_position_embeddings=1024,
            )
        )
        self.parameters = sum(p.numel() for p in model.parameters())
        self.tokens = tokens
        self.model = model
        self.half = bf16_is_faster(CPU, shape.hidden)
        self.forward = Forward(model)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
        self.batch = self._rows(tokens, length, vocabulary)

    def _rows(self, tokens: int, length: int, vocabulary: int) -> TextBatch:
        rng = np.random.default_rng(0)
        rows = [rng.integers(0, vocabulary, length) for _ in range(tokens // length)]
        return text_batch(rows, [[True] * length] * len(rows), 0, CPU)

    def cost(self) -> float:
        """Microseconds a token, the best of STEPS."""
        self.step()
        return 1e6 * min(self.step() for _ in range(STEPS)) / self.tokens

    def step(self) -> float:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.forward.losses(self.batch).sum() / self.tokens
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - began

    def profile(self) -> None:
        self.cost()
        with torch.profiler.profile() as found:
            self.step()
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=45))
