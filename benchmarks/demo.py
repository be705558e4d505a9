"""The sample project on several seeds: what PPO gained over SFT by the gold rubric, and how long the whole loop took.

Each seed runs `manage.py demo` on a data folder of its own, which takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from webapp.home_folder import ROOT


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks demo", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="folder for each seed's report as JSON; default: none is kept")
    options = parser.parse_args(argv)
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            file = (options.keep or Path(scratch)).resolve() / f"demo-{seed}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                [sys.executable, "manage.py", "demo", "--seed", str(seed), "--json", str(file)],
                cwd=ROOT,
                env=os.environ | {"TUTELAGE_HOME": str(Path(scratch) / "home")},
                check=True,
                stdout=sys.stderr,
            )
            found = json.loads(file.read_text())
        print("demo", " ".join(f"{key}={value}" for key, value in figures(found).items()), flush=True)


def figures(report: dict[str, Any]) -> dict[str, Any]:
    wins, length = report["gold_win_rate"], report["length"]
    return {
        "seed": report["seed"],
        "ppo_vs_sft": interval(wins["ppo_vs_sft"]),
        "sft_vs_base": interval(wins["sft_vs_base"]),
        "reward_accuracy": interval(report["reward_accuracy"]),
        "annotators_agree": interval(report["annotator_agreement"]),
        "kl": round(report["kl"], 2),
        "length_ratio": round(length["ppo"] / length["sft"], 2),
        "minutes": round(report["seconds"]["total"] / 60, 1),
    }


def interval(found: dict[str, Any]) -> str:
    return f"{found['value']:.3f}({found['low']:.3f}..{found['high']:.3f})"
