"""What the round came to: the gold rubric's word on held-out replies, the stages' own measures, the times."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from statistics import mean
from typing import Any, Final

import numpy as np

from annotations.models import Ranking
from annotations.selectors import usable_rankings
from training.contract import SampleRow
from webapp.demo.annotators import ranking_pair_agreement
from webapp.demo.models import Demo
from webapp.demo.round import Round
from webapp.demo.rubric import gold_score
from webapp.demo.world.cases import Case
from webapp.runs.models import Run
from webapp.runs.outputs import read_sample_rows

BOOTSTRAPS: Final = 4000
SHOWN: Final = 10
Figures = dict[str, Any]


def interval(values: Sequence[float], clusters: Sequence[Any]) -> Figures:
    """Mean with its 95 % interval: percentile bootstrap over clusters (Efron 1979). `n` counts the clusters."""
    groups: dict[Any, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    sums = np.array([sum(group) for group in groups.values()])
    sizes = np.array([len(group) for group in groups.values()])
    drawn = np.random.default_rng(0).integers(0, len(sums), (BOOTSTRAPS, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": round(float(mean(values)), 4), "low": round(float(low), 4), "high": round(float(high), 4),
            "n": len(sums)}  # fmt: skip


def win_rate(ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[Any]) -> Figures:
    """How often the first of two scores is higher; a tie is half a win."""
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(ours, theirs, strict=True)]
    return interval(wins, clusters)


def output_replies(run: Run, name: str) -> dict[str, SampleRow]:
    """The replies in a file of the run's output, by prompt."""
    return {row.prompt_id: row for row in read_sample_rows(run.outputs[f"{name}.jsonl"])}


def annotators_agreement(demo_round: Round) -> Figures:
    """How often two annotators who both prefer one of two held-out replies prefer the same one, clustered by prompt."""
    by_task: dict[int, list[Ranking]] = {}
    for ranking in usable_rankings(demo_round.project, "heldout").filter(task__isnull=False):
        by_task.setdefault(ranking.task_id or 0, []).append(ranking)
    shares, clusters = [], []
    for task, rankings in by_task.items():
        for ranking_a, ranking_b in combinations(rankings, 2):
            value, pairs = ranking_pair_agreement([(ranking_a.groups, ranking_b.groups)])
            if pairs:
                shares += [value] * pairs
                clusters += [task] * pairs
    return interval(shares, clusters) if shares else {"value": None, "low": None, "high": None, "n": 0}


def seconds(demo: Demo) -> dict[str, float]:
    """Seconds of each step that has ended, and in all."""
    durations = {key: round(demo.ended[key] - start, 1) for key, start in demo.began.items() if key in demo.ended}
    return durations | {"total": round(max(demo.ended.values(), default=0) - demo.created_at.timestamp(), 1)}


def gold(demo_round: Round) -> tuple[list[Case], dict[str, list[SampleRow]], dict[str, list[float]]]:
    """The evaluation's cases that all models answered, their replies and the replies' gold scores, by model."""
    against_base, against_sft = demo_round.run("SFT against base"), demo_round.run("PPO against SFT")
    replies_by_model = {
        "base": output_replies(against_base, "baseline"),
        "sft": output_replies(against_base, "samples"),
        "ppo": output_replies(against_sft, "samples"),
    }
    cases = {f"prompt:{prompt.pk}": case for prompt, case in zip(
        demo_round.prompts(demo_round.world.evaluation), demo_round.world.evaluation, strict=True)}  # fmt: skip
    shared = [key for key in cases if all(key in rows for rows in replies_by_model.values())]
    rows = {name: [sample_rows[key] for key in shared] for name, sample_rows in replies_by_model.items()}
    scores = {
        name: [gold_score(cases[row.prompt_id], row.reply) for row in sample_rows] for name, sample_rows in rows.items()
    }
    return [cases[key] for key in shared], rows, scores


def make_report(demo_round: Round) -> None:
    """Work out every figure and keep it."""
    cases, rows, scores = gold(demo_round)
    texts = [case.text for case in cases]
    reward, comparison = demo_round.run("Sample reward").result, demo_round.run("PPO against SFT").result
    accuracy = reward["metrics"]["heldout_accuracy"]
    low, high, n = reward["intervals"].get("heldout_accuracy", (None, None, 0))
    demo_round.demo.report = {
        "seed": demo_round.demo.seed,
        "size": demo_round.demo.size,
        "gold_win_rate": {
            "ppo_vs_sft": win_rate(scores["ppo"], scores["sft"], texts),
            "sft_vs_base": win_rate(scores["sft"], scores["base"], texts),
        },
        "gold_score": {name: interval(values, texts) for name, values in scores.items()},
        "reward_accuracy": {"value": accuracy, "low": low, "high": high, "n": n},
        "annotator_agreement": annotators_agreement(demo_round),
        "kl": comparison["metrics"]["kl"],
        "length": {name: round(mean(row.tokens for row in values), 2) for name, values in rows.items()},
        "bits_per_byte": demo_round.run("Sample base").result["metrics"]["bits_per_byte"],
        "sft_loss": demo_round.run("Sample SFT").result["metrics"]["heldout_loss"],
        "parameters": demo_round.run("Sample base").result["model"]["parameters"],
        "seconds": seconds(demo_round.demo),
        "samples": side_by_side(demo_round.demo.seed, cases, rows, scores),
    }
    demo_round.demo.save(update_fields=["report"])


def side_by_side(
    seed: int, cases: Sequence[Case], rows: dict[str, list[SampleRow]], scores: dict[str, list[float]]
) -> list[Figures]:
    """Ten prompts drawn by chance, with each model's reply and its gold score."""
    chosen = random.Random(f"{seed}:shown").sample(range(len(cases)), min(SHOWN, len(cases)))
    return [
        {
            "prompt": cases[i].text,
            **{name: {"reply": rows[name][i].reply, "gold": scores[name][i]} for name in rows},
        }
        for i in chosen
    ]
