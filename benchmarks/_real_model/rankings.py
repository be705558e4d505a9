"""Part 1: taught by people's rankings with a known truth.

Real prompts of databricks-dolly and self-instruct; the model's own replies, ranked by simulated annotators who see a
rubric through noise (rubric.py; webapp/demo/annotators.py); a reward model from the rankings; PPO with LoRA. The rubric
then says on held-out prompts how often the taught model's reply is better than that of the model as it came.
"""

from __future__ import annotations

import random
import re
import uuid
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from benchmarks._application import Json, Person, Work, say
from benchmarks._real_model.choices import rows
from benchmarks._real_model.measures import Figures, accuracy_of, mean_of, side_by_side, win_rate
from benchmarks._real_model.rubric import Points, points
from benchmarks._real_model.trial import Trial
from webapp.demo.annotators import ANNOTATORS, Annotator

DOLLY: Final = "sft/dolly_subset.jsonl.gz"
SEED_TASKS: Final = "sft/self_instruct_seed_tasks.jsonl.gz"
USER_TASKS: Final = "eval/self_instruct_user_oriented.jsonl.gz"  # for evaluation only
TRAINED: Final = 500  # prompts
HELD_OUT: Final = 300
RANKED_HELD_OUT: Final = 100  # of them, for the accuracy of the reward model
MOST_WORDS: Final = 40  # of a prompt
REFERENCE_WORDS: Final = (2, 45)
MISSING_TEXT: Final = re.compile(
    r"\b(given|below|above|following|passage|paragraph|article|reference text|this text|provided)\b", re.IGNORECASE
)
SAMPLING: Final = {"temperature": 0.7, "max_new_tokens": 64}
LORA: Final = {"rank": 16, "alpha": 32}
SAMPLE: Final[Json] = {"replies": 4, "sampling": SAMPLING, "slots": 64}
REWARD: Final[Json] = {"epochs": 1, "learning_rate": 2e-5, "batch_tokens": 4096, "max_tokens": 256}
PPO: Final[Json] = {
    "steps": 24, "prompts_per_step": 48, "epochs": 2, "minibatches": 2, "learning_rate": 1e-4, "kl_coefficient": 0.02,
    "sampling": SAMPLING, "max_prompt_tokens": 128, "lora": LORA, "evaluate_every": 12,
}  # fmt: skip
EVALUATE: Final[Json] = {"sampling": SAMPLING, "slots": 64}


def questions(data: Path, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """References by prompt: to learn from, and held out."""
    dolly = [(row["instruction"].strip(), row["response"].strip()) for row in rows(data / DOLLY)]
    learned = [pair for pair in [*dolly, *self_instruct(data / SEED_TASKS)] if is_answerable(*pair)]
    random.Random(seed).shuffle(learned)
    tested = [pair for pair in self_instruct(data / USER_TASKS) if is_answerable(*pair)]
    by_prompt = dict(learned)
    held_out = dict(list(by_prompt.items())[: HELD_OUT - len(dict(tested))] + tested)
    return {p: r for p, r in by_prompt.items() if p not in held_out}, held_out


def self_instruct(path: Path) -> list[tuple[str, str]]:
    """Each task with its first instance."""
    pairs = []
    for row in rows(path):
        instance = row["instances"][0]
        pairs.append((f"{row['instruction']}\n\n{instance['input']}".strip(), instance["output"].strip()))
    return pairs


def is_answerable(prompt: str, reference: str) -> bool:
    low, high = REFERENCE_WORDS
    short = len(prompt.split()) <= MOST_WORDS and low <= len(reference.split()) <= high
    return short and not MISSING_TEXT.search(prompt)


def run(trial: Trial) -> Figures:
    work, model = trial.work, trial.model
    learned, held_out = questions(trial.data, trial.seed)
    learned = dict(list(learned.items())[: trial.part_of(TRAINED, 20)])
    held_out = dict(list(held_out.items())[: trial.part_of(HELD_OUT, 20)])
    prompts = [{"prompt": prompt} for prompt in learned]
    prompts += [{"prompt": prompt, "split": "heldout"} for prompt in held_out]
    work.journal.once(lambda: work.change_settings(rank_overlap=1))
    work.load([trial.file("prompts", prompts)], "prompts")
    ranked = work.snapshot("prompts", heldout_limit=RANKED_HELD_OUT)
    seed = {"seed": trial.seed}
    work.run("sample", SAMPLE | seed, "replies to rank", base=model, snapshots=[ranked], rank_replies=True)
    references = learned | held_out
    work.journal.once(lambda: rank_all(work, references, trial.seed))
    reward = work.run("reward", REWARD | seed, base=model, snapshots=[work.snapshot("rankings")])
    settings = PPO | seed | {"steps": trial.part_of(PPO["steps"], 4)}
    ppo = work.run("ppo", settings, base=model, reward=reward["output"], snapshots=[work.snapshot("prompts")])
    compared = work.run(
        "evaluate", EVALUATE | seed, "PPO against the model as it came", base=ppo["output"], baseline=model,
        reward=reward["output"], snapshots=[work.snapshot("prompts", split="heldout")],
    )  # fmt: skip
    return figures_of(work, compared, references, reward, trial.seed) | {"model": ppo["output"]}


def rank_all(work: Work, references: dict[str, str], seed: int) -> None:
    """Everybody ranks in turn until no task is left."""
    people = [(annotator, work.invite(annotator.name)) for annotator in ANNOTATORS]
    done = 0
    while people:
        for annotator, person in list(people):
            if rank_next(work, person, annotator, references, seed):
                done += 1
            else:
                people.remove((annotator, person))
    say(f"{done:,} sets of replies ranked")


def rank_next(work: Work, person: Person, annotator: Annotator, references: dict[str, str], seed: int) -> bool:
    lease = person.post(f"/api/v1/projects/{work.slug}/tasks/next/", {"kinds": ["rank"]})
    if not lease:
        return False
    prompt = lease["prompt"]["messages"][-1]["content"]
    replies = sorted(lease["responses"], key=lambda reply: (reply["text"], reply["id"]))
    scores = [points(reply["text"], references[prompt]).total for reply in replies]
    groups = annotator.rank(scores, random.Random(f"{seed}:{annotator.name}:{prompt}"))
    body = {"token": str(uuid.uuid4()), "groups": [[replies[i]["id"] for i in group] for group in groups]}
    person.post(f"/api/v1/leases/{lease['id']}/ranking/", body)
    return True


def figures_of(work: Work, compared: Json, references: dict[str, str], reward: Json, seed: int) -> Figures:
    after, before = work.output(compared, "samples.jsonl"), work.output(compared, "baseline.jsonl")
    marks = {
        name: [mark(row, references) for row in replies] for name, replies in (("after", after), ("before", before))
    }
    prompts = [row["prompt_id"] for row in after]
    totals = {name: [one.total for one in of_model] for name, of_model in marks.items()}
    told: dict[str, Any] = {
        "gold_win_rate": win_rate(totals["after"], totals["before"], prompts),
        "reward_accuracy": accuracy_of(reward),
    }
    for name in ("before", "after"):
        told[f"gold_{name}"] = mean_of(totals[name], prompts)
        for part in fields(Points):
            told[f"{part.name}_{name}"] = mean_of([getattr(one, part.name) for one in marks[name]], prompts)
    metrics = compared["result"]["metrics"]
    told |= {
        "length_ratio": metrics["policy_length"] / metrics["baseline_length"],
        "ended_before": metrics["baseline_ended"], "ended_after": metrics["policy_ended"], "kl": metrics["kl"],
        "shown": side_by_side(before, after, totals["before"], totals["after"], seed=seed),
    }  # fmt: skip
    return told


def mark(row: Json, references: dict[str, str]) -> Points:
    return points(row["reply"], references[row["messages"][-1]["content"]])
