"""Part 2: taught by real preferences, short ones of Anthropic's helpful-base, helpful-online and
helpful-rejection-sampled (Bai et al. 2022, arXiv:2204.05862).

The prompts are dealt into three parts: one for the reward model, one for a judge that nothing else sees, and one held
out from both. PPO learns from the reward model; DPO, KTO and GRPO learn from the same rankings and prompts. The judge
then says of each, on held-out prompts, how often its reply is better than that of the model as it came.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks._application import Json
from benchmarks._real_model.choices import rows
from benchmarks._real_model.measures import Figures, accuracy_of, interval_of, side_by_side
from benchmarks._real_model.trial import Trial

FILES: Final = tuple(f"preferences/hh_helpful_{part}.jsonl.gz" for part in ("base", "online", "rejection_sampled"))
MOST_CHARACTERS: Final = 640  # of a conversation with its reply: about 150 tokens
FIRST_REPLY: Final = "\n\nAssistant:"
HELD_OUT: Final = 0.3  # share of the prompts
JUDGED: Final = 0.28
EVALUATED: Final = 300  # prompts
SAMPLING: Final[Json] = {"temperature": 0.7, "max_new_tokens": 64}
LORA: Final[Json] = {"rank": 16, "alpha": 32}
REWARD: Final[Json] = {"epochs": 1, "learning_rate": 2e-5, "batch_tokens": 4096, "max_tokens": 256}
ROLLOUTS: Final[Json] = {
    "steps": 24, "sampling": SAMPLING, "max_prompt_tokens": 160, "lora": LORA, "learning_rate": 1e-4,
    "evaluate_every": 0,
}  # fmt: skip
LABELS: Final[Json] = {"learning_rate": 5e-5, "batch_tokens": 4096, "max_tokens": 256, "lora": LORA}
METHODS: Final[dict[str, Json]] = {
    "ppo": ROLLOUTS | {"prompts_per_step": 48, "epochs": 2, "minibatches": 2, "kl_coefficient": 0.02},
    "grpo": ROLLOUTS | {"prompts_per_step": 6, "samples_per_prompt": 8, "beta": 0.02},
    "dpo": LABELS,
    "kto": LABELS,
}
LENGTH: Final = ("length_only_accuracy", "longer_is_better")


def parts(data: Path, seed: int, share: float) -> tuple[list[Json], list[Json]]:
    """Rows for the reward model with those held out, and rows for the judge. No first question stands in two parts."""
    by_question: dict[str, list[Json]] = {}
    for file in FILES:
        for row in rows(data / file):
            if max(len(row["chosen"]), len(row["rejected"])) <= MOST_CHARACTERS:
                by_question.setdefault(row["chosen"].partition(FIRST_REPLY)[0], []).append(row)
    asked = sorted(by_question)
    random.Random(seed).shuffle(asked)
    asked = asked[: int(len(asked) * share)]
    held_out, judged = int(len(asked) * HELD_OUT), int(len(asked) * JUDGED)
    taught = [row for question in asked[held_out + judged :] for row in by_question[question]]
    kept = [row | {"split": "heldout"} for question in asked[:held_out] for row in by_question[question]]
    return taught + kept, [row for question in asked[held_out : held_out + judged] for row in by_question[question]]


@dataclass(frozen=True)
class Given:
    """What the methods learn from, and what they are measured by."""

    reward: int
    judge: int
    rankings: int
    prompts: int
    held_out: int


def run(trial: Trial) -> Figures:
    work = trial.work
    own, apart = parts(trial.data, trial.seed, trial.share)
    rankings, prompts = load(trial, "own", own)
    judged, _ = load(trial, "apart", apart)
    learned = work.snapshot("rankings", ids=rankings)
    settings = REWARD | {"seed": trial.seed}
    reward = work.run("reward", settings, base=trial.model, snapshots=[learned])
    judge = work.run(
        "reward", settings, "judge, held apart", base=trial.model,
        snapshots=[work.snapshot("rankings", split="train", ids=judged)],
    )["output"]  # fmt: skip
    told = work.run(
        "evaluate", {}, "the judge on held-out rankings", reward=judge,
        snapshots=[work.snapshot("rankings", split="heldout", ids=rankings)],
    )  # fmt: skip
    figures: Figures = {"reward_accuracy": accuracy_of(reward), "judge_accuracy": interval_of(told, "reward_accuracy")}
    figures |= {name: reward["result"]["metrics"][f"heldout_{name}"] for name in LENGTH}
    tested = work.snapshot("prompts", split="heldout", ids=prompts, heldout_limit=trial.part_of(EVALUATED, 20))
    given = Given(reward["output"], judge, learned, work.snapshot("prompts", ids=prompts), tested)
    for method in METHODS:
        figures |= taught_by(method, trial, given)
    return figures


def load(trial: Trial, name: str, its_rows: list[Json]) -> tuple[list[int], list[int]]:
    """The ids of the new rankings and of their prompts."""
    work = trial.work
    before = work.ids("rankings"), work.ids("prompts")
    work.load([trial.file(name, its_rows)], "rankings")
    return sorted(work.ids("rankings") - before[0]), sorted(work.ids("prompts") - before[1])


def taught_by(method: str, trial: Trial, given: Given) -> Figures:
    work, settings = trial.work, METHODS[method] | {"seed": trial.seed}
    inputs: dict[str, Any] = {"snapshots": [given.rankings]}
    if "steps" in settings:
        settings["steps"] = trial.part_of(settings["steps"], 4)
        inputs = {"snapshots": [given.prompts], "reward": given.reward}
    taught = work.run(method, settings, base=trial.model, **inputs)
    compared = work.run(
        "evaluate", {"sampling": SAMPLING, "slots": 64, "seed": trial.seed}, f"{method} by the judge",
        base=taught["output"], baseline=trial.model, reward=given.judge, snapshots=[given.held_out],
    )  # fmt: skip
    metrics = compared["result"]["metrics"]
    figures: Figures = {
        "win_rate": interval_of(compared, "win_rate"),
        "kl": metrics["kl"],
        "length_ratio": metrics["policy_length"] / metrics["baseline_length"],
        "ended": metrics["policy_ended"],
        "minutes": taught["result"]["seconds"]["total"] / 60,
    }
    named = {f"{method}_{name}": figure for name, figure in figures.items()}
    if method == "ppo":
        after, before = work.output(compared, "samples.jsonl"), work.output(compared, "baseline.jsonl")
        scores = [[row["reward"] for row in replies] for replies in (before, after)]
        named |= {"model": taught["output"], "shown": side_by_side(before, after, *scores, seed=trial.seed)}
    return named
