"""What the training benchmarks share: models and rows of a stated shape, our stages and peers' scripts as child
processes, and the line of figures.

Everything is made on the spot: words t0, t1, … are tokens, weights are random, so only the arithmetic is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.data.chat_format import SPECIAL
from training.stages.tokenizer import wrap
from webapp.home_folder import ROOT

VOCABULARY: Final = 8192
UNKNOWN: Final = "<unk>"
Row = dict[str, Any]
Best = Callable[[Iterable[float]], float]


@dataclass(frozen=True)
class Shape:
    """A Llama without tied embeddings."""

    hidden: int
    mlp: int
    layers: int
    heads: int

    def config(self, tokenizer: PreTrainedTokenizerFast, **more: Any) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=self.hidden, intermediate_size=self.mlp,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.heads,
            max_position_embeddings=1024, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id, **more,
        )  # fmt: skip


SMALL: Final = Shape(hidden=256, mlp=704, layers=4, heads=4)  # 7.4 million parameters
MIDDLE: Final = Shape(hidden=384, mlp=1024, layers=6, heads=6)  # 16.9 million


def words() -> PreTrainedTokenizerFast:
    """A chat tokenizer of VOCABULARY tokens, each a word."""
    known = [*SPECIAL, UNKNOWN, *(f"t{i}" for i in range(VOCABULARY - len(SPECIAL) - 1))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL))
    return wrap(tokenizer, 1024)


def policy_folder(folder: Path, shape: Shape) -> Path:
    tokenizer = words()
    torch.manual_seed(0)
    LlamaForCausalLM(shape.config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reward_folder(folder: Path, shape: Shape) -> Path:
    tokenizer = words()
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(shape.config(tokenizer, num_labels=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def text(rng: np.random.Generator, count: int) -> str:
    """`count` words, each a token."""
    return " ".join(f"t{i}" for i in rng.integers(0, VOCABULARY - len(SPECIAL) - 1, count))


def turns(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": words} for i, words in enumerate(said)]


def run_folder(folder: Path, config: Row, **data: Iterable[Row]) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, rows in data.items():
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@dataclass(frozen=True)
class Outcome:
    """A stage that ran to its end."""

    result: Row
    events: list[Row]
    peak_gb: float  # most resident memory of the process, 10^9 bytes

    def metrics(self, name: str) -> list[float]:
        return [event["values"][name] for event in self.events if event["type"] == "metric" and name in event["values"]]


def run_stage(stage: str, folder: Path) -> Outcome:
    """`python -m training STAGE FOLDER` as its callers start it."""
    child = subprocess.Popen([sys.executable, "-m", "training", stage, folder], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    if child.returncode:
        raise SystemExit(f"{stage}: {events[-1].get('message', 'failed')}")
    return Outcome(json.loads((folder / "result.json").read_text()), events, usage.ru_maxrss * 1024 / 1e9)


def arguments(name: str, description: str | None, argv: Sequence[str]) -> argparse.Namespace:
    """The options of a benchmark whose peer is a script with an environment of its own."""
    parser = argparse.ArgumentParser(prog=f"benchmarks {name}", description=description)
    parser.add_argument("--peer", type=Path, metavar="SCRIPT", help="run this in turn with ours, and compare medians")
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has what the peer needs")
    return with_rounds(parser, argv)


def own_peer(name: str, description: str | None, argv: Sequence[str]) -> argparse.Namespace:
    """The options of a benchmark whose peer lives in this environment."""
    parser = argparse.ArgumentParser(prog=f"benchmarks {name}", description=description)
    parser.add_argument("--peer", action="store_true", help="run the peer in turn with ours, and compare medians")
    return with_rounds(parser, argv)


def with_rounds(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    parser.add_argument("--rounds", type=int, default=3, help="with a peer; without, one")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Peer:
    """What a peer reached, in the benchmark's unit."""

    figure: float
    peak_gb: float | None = None  # most resident memory of the process, 10^9 bytes, where it can be seen


def script(options: argparse.Namespace, pattern: str, best: Best = max) -> Callable[[Path], Peer]:
    """Runs the peer's script: what it reached at its best setting, as `pattern` finds it."""
    return lambda _: told_by([options.peer_python, str(options.peer)], pattern, best)


def own(name: str, *more: str, pattern: str) -> Peer:
    """Runs a peer that lives in this environment."""
    return told_by([sys.executable, "-m", "benchmarks._peers", name, *more], pattern, cwd=ROOT)


def told_by(command: Sequence[str], pattern: str, best: Best = max, cwd: Path | None = None) -> Peer:
    """The best of the figures that `pattern` finds in what a command prints."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=log, text=True)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, log):
            file.seek(0)
        found = [float(number) for number in re.findall(pattern, out.read())]
        if not found:
            raise SystemExit(f"{' '.join(command)}: no figure in its output. {log.read()[-500:]}")
    # Linux counts a child's memory from its parent's on: less than this process ever had cannot be seen.
    seen = usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Peer(best(found), usage.ru_maxrss * 1024 / 1e9 if seen else None)


def compare(
    name: str,
    options: argparse.Namespace,
    ours: Callable[[Path], tuple[float, float, Row]],
    *,
    peer: Callable[[Path], Peer],
    best: Best = max,
) -> None:
    """Measure ours and, with --peer, the peer in turn, and print the line. Both get an empty folder; `ours` gives the
    figure, the peak memory in GB and what else is to be told; `best` is max where more is better, min where less is."""
    figures, peaks, peers, more = [], [], list[Peer](), dict[str, Any]()
    for _ in range(options.rounds if options.peer else 1):
        with tempfile.TemporaryDirectory() as scratch:
            figure, peak, more = ours(Path(scratch))
        figures.append(figure)
        peaks.append(peak)
        if options.peer:
            with tempfile.TemporaryDirectory() as scratch:
                peers.append(peer(Path(scratch)))
    told: Row = {"ours": f"{statistics.median(figures):.4g}", "peak_GB": f"{max(peaks):.2f}", **more}
    if peers:
        ours_median, peer_median = statistics.median(figures), statistics.median(one.figure for one in peers)
        ratio = ours_median / peer_median if best is max else peer_median / ours_median
        told |= {"peer": f"{peer_median:.4g}", "ratio": f"{ratio:.2f}", "rounds": len(peers)}
        if any(one.peak_gb for one in peers):
            told |= {"peer_peak_GB": f"{max(one.peak_gb or 0 for one in peers):.2f}"}
    print(name, " ".join(f"{key}={value}" for key, value in told.items()), flush=True)
