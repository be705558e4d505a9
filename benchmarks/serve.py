"""Tokens per second that the model server gives 16 clients at once, 64 tokens per reply; higher is better.

16.9 million parameters. --peer takes the address of another server of the same interface, and --peer-model its model's
name.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks._training import MIDDLE, Peer, Row, compare, policy_folder, run_folder, with_rounds
from webapp.home_folder import ROOT

AT_ONCE, REQUESTS, TOKENS = 16, 64, 64
START_SECONDS = 240.0


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks serve", description=__doc__)
    parser.add_argument("--peer", metavar="URL", help="measure this server in turn with ours")
    parser.add_argument("--peer-model", default="", help="what the peer calls its model")
    options = with_rounds(parser, argv)
    compare("serve", options, measure, peer=lambda _: Peer(load(options.peer, options.peer_model)))


def load(url: str, model: str) -> float:
    """Tokens per second of AT_ONCE clients. Random weights end one reply in a hundred early, so the usage counts."""
    with httpx.Client(base_url=url, timeout=300) as http, ThreadPoolExecutor(AT_ONCE) as pool:

        def ask(i: int) -> int:
            body = {
                "model": model, "max_tokens": TOKENS, "temperature": 0.7,
                "messages": [{"role": "user", "content": f"t{i} " * 40}],
            }  # fmt: skip
            answer = http.post("/v1/chat/completions", json=body).raise_for_status()
            return int(answer.json()["usage"]["completion_tokens"])

        list(pool.map(ask, range(AT_ONCE)))
        began = time.perf_counter()
        tokens = sum(pool.map(ask, range(REQUESTS)))
        return tokens / (time.perf_counter() - began)


def measure(scratch: Path) -> tuple[float, float, Row]:
    port = free_port()
    config = {"stage": "serve", "port": port, "models": {"model": str(policy_folder(scratch / "model", MIDDLE))}}
    folder = run_folder(scratch / "run", config)
    child = subprocess.Popen([sys.executable, "-m", "training", "serve", folder], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url)
        figure = load(url, "model")
    finally:
        child.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
    return figure, usage.ru_maxrss * 1024 / 1e9, {"at_once": AT_ONCE}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(url: str) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("serve: the model server did not start")
