"""Models and run folders so small that a stage takes a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.__main__ import run_stage
from training.chatformat import ChatFormat
from training.models import save_model
from training.tokenizer import learn, wrap

PROJECT = Path(__file__).parents[2]
TEXTS = ["the cat sat on the mat", "yes of course the sky is blue", "no never the sea is 1234567890"] * 3


@cache
def toy_tokenizer() -> PreTrainedTokenizerFast:
    return wrap(learn(iter(TEXTS), 300, len(TEXTS)), 64)


def toy_policy(folder: Path, seed: int = 0, hidden: int = 32) -> Path:
    """A random chat model of some ten thousand parameters."""
    torch.manual_seed(seed)
    tokenizer = toy_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    save_model(LlamaForCausalLM(config), tokenizer, folder, ChatFormat(tokenizer).stop_ids)
    return folder


def run_folder(folder: Path, config: dict[str, Any], **data: Iterable[dict[str, Any]]) -> Path:
    """A run folder with its config and the rows of data/*.jsonl."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"device": "cpu", "threads": 1, **config}))
    for name, rows in data.items():
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run_here(folder: Path) -> dict[str, Any]:
    """Runs the folder's stage in this process; its result."""
    assert run_stage(json.loads((folder / "config.json").read_text())["stage"], folder) == 0
    return json.loads((folder / "result.json").read_text())


def start_child(folder: Path) -> subprocess.Popen[str]:
    """Runs the folder's stage as its caller does, in a process of its own."""
    stage = json.loads((folder / "config.json").read_text())["stage"]
    return subprocess.Popen(
        [sys.executable, "-m", "training", stage, str(folder)],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@contextmanager
def started_together(
    folder: Path, processes: int = 2, config: str = "parallel", **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Runs the folder's stage in several processes, as a person does who has several GPUs; none outlives the block."""
    stage = json.loads((folder / "config.json").read_text())["stage"]
    launcher = subprocess.Popen(
        [
            sys.executable, "-m", "accelerate.commands.launch",
            "--config_file", f"training/accelerate/{config}.yaml", "--num_processes", str(processes),
            "-m", "training", stage, str(folder),
        ],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    workers: list[psutil.Process] = []
    try:
        yield launcher
    finally:
        if launcher.poll() is None:
            workers = psutil.Process(launcher.pid).children(recursive=True)
        for process in [launcher, *workers]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        launcher.communicate()


def events(folder: Path, kind: str = "") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in found if not kind or event["type"] == kind]


def turns(*contents: str) -> list[dict[str, str]]:
    """A conversation that the user begins."""
    return [{"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)]


def prompts(n: int = 12) -> list[dict]:
    return [{"id": f"prompt:{i}", "messages": turns(f"the cat {i}")} for i in range(n)]
