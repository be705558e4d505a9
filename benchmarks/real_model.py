"""A real chat model taken round the loop through the application, from outside: SmolLM2-135M-Instruct or another.

Each part goes once round for every seed, in a project of its own. `rankings`: people's rankings with a known truth, a
reward model from them, PPO; what the model knows besides, ARC-easy and BLiMP, is measured before and after.
`preferences`: real comparisons, a reward model from some of them and a judge from others, PPO beside DPO, KTO and GRPO.
`sums`: GRPO with a reward that checks the answer. Needs the data folder (--data) and the model's folder (--model).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks._application import Journal, Json, Person, say
from benchmarks._real_model.choices import Reader, arc_easy, blimp
from benchmarks._real_model.measures import Figures, change_of, mean_of
from benchmarks._real_model.trial import Trial
from training.run.intervals import Interval
from webapp.supervisor.running import running

JOURNALS: Final = "benchmark"  # in the data folder of the site: what is done of each round
PARTS: Final = ("rankings", "preferences", "sums")


class Knowledge:
    """ARC-easy and BLiMP, measured once for the model as it came, and kept beside the reports."""

    def __init__(self, folder: Path, data: Path, keep: Path | None) -> None:
        self.data = data
        kept = keep and keep / "knowledge.json"
        if kept and kept.is_file():
            self.before: dict[str, list[float]] = json.loads(kept.read_text())
            return
        self.before = self.of(folder, data)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(self.before))

    @staticmethod
    def of(folder: Path, data: Path) -> dict[str, list[float]]:
        reader = Reader(folder)
        return {"arc_easy": arc_easy(reader, data), "blimp": blimp(reader, data)}

    def after(self, folder: Path) -> Figures:
        figures: Figures = {}
        for name, right in self.of(folder, self.data).items():
            figures[f"{name}_before"] = mean_of(self.before[name], [str(i) for i in range(len(right))])
            figures[f"{name}_change"] = change_of(self.before[name], right)
        return figures


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks real_model", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files")
    parser.add_argument("--model", type=Path, required=True, help="folder of the chat model")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--home", type=Path, help="data folder of the site; one that was interrupted goes on")
    parser.add_argument("--keep", type=Path, help="folder for the reports on one model; what is there is left out")
    parser.add_argument("--share", type=float, default=1.0, help="take this share of rows and steps, for a quick look")
    options = parser.parse_args(argv)
    data, model = options.data.resolve(), options.model.resolve()
    if not (model / "config.json").is_file():
        raise SystemExit(f"real_model: {model} is no model's folder; it has no config.json")
    os.environ["MODEL_FOLDERS"] = str(model.parent)
    rounds = [(part, seed) for part in options.parts for seed in options.seeds]
    rounds = [one for one in rounds if not reported(options.keep, *one)]
    with tempfile.TemporaryDirectory() as scratch:
        home = (options.home or Path(scratch) / "home").resolve()
        with running(home) as site:
            owner = Person(site.url, journal=Journal(home / JOURNALS / "owner.json"))
            knowledge = Knowledge(model, data, options.keep) if "rankings" in dict(rounds) else None
            for part, seed in rounds:
                began = time.monotonic()
                figures = around(owner, part, seed, model, data, Path(scratch), options.share, home / JOURNALS)
                if knowledge and part == "rankings":
                    figures |= knowledge.after(folder_of(owner, home, figures["model"]))
                figures["minutes"] = round((time.monotonic() - began) / 60, 1)
                report(part, seed, figures, options.keep)


def around(
    owner: Person, part: str, seed: int, model: Path, data: Path, scratch: Path, share: float, journals: Path
) -> dict[str, Any]:
    """One part for one seed, in a project of its own."""
    journal = Journal(journals / f"{part}-{seed}.json")
    work = owner.new_project(f"{part.capitalize()} {seed}", "The benchmark of a real model.", journal)
    added = work.add_model(model)
    say(f"{part}, seed {seed}")
    module = import_module(f"benchmarks._real_model.{part}")
    figures: dict[str, Any] = module.run(Trial(work, added, data, scratch, seed, share))
    return figures


def folder_of(owner: Person, home: Path, model: int) -> Path:
    """Where the site keeps a model."""
    digest = owner.get(f"/api/v1/models/{model}/")["sha256"]
    return next(home.glob(f"artefacts/*/{digest[:32]}"))


def report_file(keep: Path, part: str, seed: int) -> Path:
    return keep / f"{part}-{seed}.json"


def reported(keep: Path | None, part: str, seed: int) -> bool:
    return keep is not None and report_file(keep, part, seed).is_file()


def report(part: str, seed: int, figures: Json, keep: Path | None) -> None:
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        report_file(keep, part, seed).write_text(json.dumps(figures, indent=1, default=str))
    told = {"part": part, "seed": seed} | {key: shown(value) for key, value in figures.items() if key != "shown"}
    print("real_model", " ".join(f"{key}={value}" for key, value in told.items()), flush=True)


def shown(value: Any) -> Any:
    if isinstance(value, Interval):
        return (
            f"{value.value:.3f}({value.low:.3f}..{value.high:.3f})" if value.low is not None else f"{value.value:.3f}"
        )
    return round(value, 3) if isinstance(value, float) else value
