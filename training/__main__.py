"""python -m training STAGE RUN_DIR [--recipe NAME]

Runs one stage in its run folder. The config is validated before torch is imported; see training/contract/ for the
files of a run folder and the exit statuses.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from training.contract import EXIT_DONE, EXIT_STOPPED, STAGES, TrainingError, read_recipes
from training.distributed.launch import is_launched
from training.kernels.heap import disable_malloc_trim
from training.run.checkpoints import Stopped
from training.run.launcher import die_with_parent, processes_wanted, report_status, run_together
from training.run.opening import open_run

SPINS = "10000"  # about a tenth of a millisecond
KERNELS = "256"  # that oneDNN and torch's caches of its operations keep, half a megabyte each; theirs is 1,024


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description="Run one stage in its run folder.")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="holds config.json and data/*.jsonl")
    parser.add_argument(
        "--recipe", choices=list(read_recipes()), help="settings for what config.json leaves out; see training/recipes/"
    )
    chosen = parser.parse_args(arguments)
    # Threads that sleep at once when they wait for each other take 1.6 times as long over a small model; threads that
    # spin for milliseconds, ten times as long where other processes want the cores too. OpenMP reads this once, when
    # torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, KERNELS)
    # peft and TRL ask by the old name; whoever reads a run's log can do nothing about it.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    disable_malloc_trim()
    processes, shard = processes_wanted(chosen.run_dir, chosen.recipe or "")
    if processes > 1:
        return run_together(list(arguments or sys.argv[1:]), processes, shard=shard)
    return report_status(status_of_stage(chosen.stage, chosen.run_dir, chosen.recipe or ""))


def status_of_stage(stage: str, folder: Path, recipe: str) -> int:
    if is_launched():
        die_with_parent()
    try:
        return run_stage(stage, folder, recipe)
    except Stopped:
        return EXIT_STOPPED
    except TrainingError as error:
        if error.code == "internal":
            traceback.print_exception(error.__cause__)
        print(error.message, file=sys.stderr)
        return error.exit_status


def run_stage(stage: str, folder: Path, recipe: str = "") -> int:
    """Run it to its end. Raises Stopped after SIGTERM, TrainingError where it fails."""
    with open_run(folder, stage, recipe=recipe) as run:
        if not run.finished():
            importlib.import_module(f"training.stages.{stage}").main(run)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
