"""Peers that live in this environment: what people use today, on the same work. `python -m benchmarks._peers NAME …`"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, StoppingCriteria


def reward(model: str, pairs: str) -> None:
    """TRL's RewardTrainer, fp32, eight pairs a step."""
    from datasets import Dataset  # noqa: PLC0415 (slow to import, and only this one needs it)
    from trl import RewardConfig, RewardTrainer  # noqa: PLC0415

    steps = 12
    settings = RewardConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=8, max_steps=steps, max_length=512, report_to="none",
        logging_steps=steps, use_cpu=True, bf16=False, activation_checkpointing=False, save_strategy="no",
        disable_tqdm=True, center_rewards_coefficient=0.01,
    )  # fmt: skip
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=1),
        args=settings,
        train_dataset=Dataset.from_list(json.loads(Path(pairs).read_text())),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    began = time.perf_counter()
    trainer.train()
    print(f"trl-reward pairs/s={8 * steps / (time.perf_counter() - began):.2f}")


class AtItsLength(StoppingCriteria):
    """Ends each row after as many new tokens as were drawn for it."""

    def __init__(self, start: int, lengths: list[int]) -> None:
        self.start, self.lengths = start, torch.tensor(lengths)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:  # noqa: ARG002
        return input_ids.shape[1] - self.start >= self.lengths


def generate(folder: str) -> None:
    """transformers' generate in batches of 32 of like length, padded on the left, in both precisions."""
    from benchmarks.generate import work  # noqa: PLC0415 (it imports this package's engine)

    for dtype in (torch.float32, torch.bfloat16):
        print(f"transformers-generate {dtype} tok/s={generated(folder, dtype, work()):.1f}")


def generated(folder: str, dtype: torch.dtype, work: list[tuple[list[int], int]]) -> float:
    """Tokens a second."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    rows = sorted(work, key=lambda row: row[1])
    began, tokens = time.perf_counter(), 0
    for first in range(0, len(rows), 32):
        batch = rows[first : first + 32]
        width, lengths = max(len(prompt) for prompt, _ in batch), [length for _, length in batch]
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for row, (prompt, _) in zip(ids, batch, strict=True):
            row[width - len(prompt) :] = torch.tensor(prompt)
        mask = torch.stack([torch.arange(width) >= width - len(prompt) for prompt, _ in batch]).long()
        model.generate(
            inputs=ids, attention_mask=mask, max_new_tokens=max(lengths), do_sample=True, top_k=0, eos_token_id=None,
            pad_token_id=0, stopping_criteria=[AtItsLength(width, lengths)],
        )  # fmt: skip
        tokens += sum(lengths)
    return tokens / (time.perf_counter() - began)


def llama_server(file: str, port: str, threads: str, slots: str) -> None:
    """llama.cpp's own server, through its Python binding, until it is killed."""
    import xllamacpp  # noqa: PLC0415 (only this peer needs it)

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.hostname, params.port = "127.0.0.1", int(port)
    params.n_parallel, params.n_ctx, params.n_gpu_layers = int(slots), int(slots) * 512, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.use_jinja, params.verbosity = True, 0
    server = xllamacpp.Server(params)
    while server.listening_address:
        time.sleep(60)


if __name__ == "__main__":
    peer: Callable[..., None] = {"reward": reward, "generate": generate, "llama_server": llama_server}[sys.argv[1]]  # type: ignore[assignment]
    peer(*sys.argv[2:])
