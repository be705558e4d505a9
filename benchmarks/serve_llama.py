"""Tokens per second of the model server and of llama.cpp's own, at 1, 8 and 16 clients; higher is better.

MODEL is a folder in Hugging Face layout of a Llama-like chat model; --gguf the same model in a file for llama.cpp,
through its Python binding xllamacpp. Both answer the same requests over HTTP, in turn. The figures are tokens per
second of processor time, which other programs on the machine change less; per second of the clock stands in brackets.
The last figures tell what 8-bit weights change: at how many places of replies that the model writes greedily with its
full weights it still prefers the same token, and how far apart (KL divergence) the two distributions are there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import torch
from torch import Tensor, nn

from benchmarks._training import run_folder
from benchmarks.serve import free_port, wait_for
from training.contract import Turn
from training.data.chat_format import ChatFormat
from training.engine import Engine, EngineRequest, SamplingParams
from training.kernels.int8 import dequantize_int8, quantize_int8
from training.models.compute import Compute
from training.models.loading import load_causal, load_tokenizer
from webapp.home_folder import ROOT

CLIENTS: Final = (1, 8, 16)
TOKENS: Final = 64
PROMPTS: Final = 50  # of the comparison of weights
SUBJECTS: Final = ("rivers", "a lost key", "bread", "the moon", "two friends", "winter", "a small town", "music")
ASKING: Final = ("Tell me a story about", "Explain to a child", "Write three sentences on", "What is known of")


class Figure(NamedTuple):
    """Tokens per second."""

    of_processor: float
    of_clock: float


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks serve_llama", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--gguf", type=Path, help="measure llama.cpp with this file in turn with ours")
    parser.add_argument("--weights", choices=("full", "int8"), default="int8")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-quality", action="store_true", help="leave out the comparison of weights")
    options = parser.parse_args(argv)
    ours: dict[int, list[Figure]] = {clients: [] for clients in CLIENTS}
    peers: dict[int, list[Figure]] = {clients: [] for clients in CLIENTS}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as scratch, our_server(Path(scratch), options) as (url, pid):
            measure(url, pid, ours)
        if options.gguf:
            with llama_server(options) as (url, pid):
                measure(url, pid, peers)
    print(
        "serve_llama", f"weights={options.weights} threads={options.threads}", *told(ours, peers), end=" ", flush=True
    )
    print("" if options.no_quality else quality(options.model), flush=True)


def told(ours: dict[int, list[Figure]], peers: dict[int, list[Figure]]) -> Iterator[str]:
    for clients in CLIENTS:
        our, peer = medians(ours[clients]), medians(peers[clients])
        yield f"ours_{clients}={our.of_processor:.1f}({our.of_clock:.1f})"
        if peers[clients]:
            yield f"peer_{clients}={peer.of_processor:.1f}({peer.of_clock:.1f})"
            yield f"ratio_{clients}={our.of_processor / peer.of_processor:.2f}"


def medians(figures: list[Figure]) -> Figure:
    return Figure(*(statistics.median(column) for column in zip(*figures, strict=True))) if figures else Figure(0, 0)


@contextmanager
def our_server(scratch: Path, options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    port = free_port()
    config = {
        "stage": "serve", "port": port, "models": {"model": str(options.model.resolve())}, "device": "cpu",
        "weights": options.weights, "threads": options.threads,
    }  # fmt: skip
    folder = run_folder(scratch / "run", config)
    with answering([sys.executable, "-m", "training", "serve", str(folder)], port) as address_and_pid:
        yield address_and_pid


@contextmanager
def llama_server(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    port = free_port()
    command = ["llama_server", str(options.gguf), str(port), str(options.threads), str(max(CLIENTS))]
    with answering([sys.executable, "-m", "benchmarks._peers", *command], port) as address_and_pid:
        yield address_and_pid


@contextmanager
def answering(command: Sequence[str], port: int) -> Iterator[tuple[str, int]]:
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url)
        yield url, child.pid
    finally:
        child.kill()
        child.wait()


def measure(url: str, pid: int, figures: dict[int, list[Figure]]) -> None:
    with httpx.Client(base_url=url, timeout=600) as http, ThreadPoolExecutor(max(CLIENTS)) as pool:

        def ask(number: int) -> int:
            body = {
                "model": "model", "max_tokens": TOKENS, "temperature": 0.7, "seed": number, "ignore_eos": True,
                "messages": [{"role": "user", "content": prompt(number)}],
            }  # fmt: skip
            answer = http.post("/v1/chat/completions", json=body).raise_for_status()
            return int(answer.json()["usage"]["completion_tokens"])

        ask(0)
        for clients, reached in figures.items():
            began, used = time.perf_counter(), processor_seconds(pid)
            tokens = sum(pool.map(ask, range(clients)))
            reached.append(Figure(tokens / (processor_seconds(pid) - used), tokens / (time.perf_counter() - began)))


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prompt(number: int) -> str:
    return f"{ASKING[number // len(SUBJECTS) % len(ASKING)]} {SUBJECTS[number % len(SUBJECTS)]} ({number + 1})."


@torch.inference_mode()
def quality(folder: Path) -> str:
    """How 8-bit weights differ from full ones on what the model writes greedily with full ones."""
    tokenizer = load_tokenizer(str(folder))
    chat = ChatFormat(tokenizer, str(folder))
    model: Any = load_causal(str(folder), Compute(torch.device("cpu"), torch.float32))
    prompts = [chat.prompt([Turn(role="user", content=prompt(number))]) for number in range(PROMPTS)]
    greedy = SamplingParams(temperature=0, max_new_tokens=TOKENS // 2, stop_ids=frozenset(chat.stop_ids))
    engine = Engine(model, tokenizer, slots=16, live=False)
    replies = [reply.tokens for reply in engine.generate([EngineRequest(tokens, greedy) for tokens in prompts])]

    def logprobs() -> list[Tensor]:
        """Of each reply's tokens [reply, V]."""
        both = zip(prompts, replies, strict=True)
        return [
            model(torch.tensor([tokens + reply])).logits[0, len(tokens) - 1 : -1].log_softmax(-1)
            for tokens, reply in both
        ]

    full = logprobs()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(dequantize_int8(quantize_int8(module.weight)), requires_grad=False)
    before, after = torch.cat(full), torch.cat(logprobs())
    same = int((before.argmax(-1) == after.argmax(-1)).sum())
    divergence = float((before.exp() * (before - after)).sum(-1).mean())
    return f"same_token={same}/{len(before)} kl={divergence:.5f}"
