"""Part 3: taught by a rule that can be checked. GRPO on sums of two numbers that the model gets partly right; a reply's
reward is 1 if its last number is the sum. Held-out sums say how many it gets right before and after, sampled as in
training and greedily.
"""

from __future__ import annotations

import random
from itertools import product
from typing import Final

from benchmarks._application import Json
from benchmarks._real_model.measures import Figures, interval_of, side_by_side
from benchmarks._real_model.trial import Trial

QUESTION: Final = "What is {a} plus {b}? Reply with the number."
LARGEST: Final = 20
HELD_OUT: Final = 120  # of the 400 sums of two numbers from 1 to 20; the project holds out a few more
SAMPLING: Final[Json] = {"temperature": 0.7, "max_new_tokens": 24}
REWARDS: Final[list[Json]] = [{"kind": "numeric"}]
GRPO: Final[Json] = {
    "steps": 24, "prompts_per_step": 8, "samples_per_prompt": 8, "learning_rate": 1e-4, "beta": 0.01,
    "sampling": SAMPLING, "lora": {"rank": 16, "alpha": 32}, "rewards": REWARDS, "evaluate_every": 0,
}  # fmt: skip


def questions(seed: int) -> tuple[dict[str, int], dict[str, int]]:
    """Sums by question: to learn from, and held out."""
    numbers = list(product(range(1, LARGEST + 1), repeat=2))
    random.Random(seed).shuffle(numbers)
    sums = {QUESTION.format(a=a, b=b): a + b for a, b in numbers}
    held_out = dict(list(sums.items())[:HELD_OUT])
    return {question: total for question, total in sums.items() if question not in held_out}, held_out


def run(trial: Trial) -> Figures:
    work, (learned, held_out) = trial.work, questions(trial.seed)
    rows = [{"prompt": question, "reference": str(total)} for question, total in learned.items()]
    rows += [{"prompt": question, "reference": str(total), "split": "heldout"} for question, total in held_out.items()]
    work.load([trial.file("sums", rows)], "prompts")
    settings = GRPO | {"seed": trial.seed, "steps": trial.part_of(GRPO["steps"], 4)}
    taught = work.run("grpo", settings, base=trial.model, snapshots=[work.snapshot("prompts")])["output"]
    heldout = work.snapshot("prompts", split="heldout")
    figures: Figures = {"model": taught}
    for name, temperature in (("sampled", SAMPLING["temperature"]), ("greedy", 0.0)):
        settings = {"sampling": SAMPLING | {"temperature": temperature}, "rewards": REWARDS, "seed": trial.seed}
        compared = work.run(
            "evaluate", settings, f"sums before and after, {name}", base=taught, baseline=trial.model,
            snapshots=[heldout],
        )  # fmt: skip
        figures[f"{name}_before"] = interval_of(compared, "baseline_correct")
        figures[f"{name}_after"] = interval_of(compared, "policy_correct")
    metrics = compared["result"]["metrics"]
    figures |= {"length_before": metrics["baseline_length"], "length_after": metrics["policy_length"]}
    after, before = work.output(compared, "samples.jsonl"), work.output(compared, "baseline.jsonl")
    scores = [[row["reward"] for row in replies] for replies in (before, after)]
    return figures | {"shown": side_by_side(before, after, scores[0], scores[1], seed=trial.seed)}
