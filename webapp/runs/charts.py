"""Which metrics share a chart, and their points as the browser draws them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from webapp.runs.models import Run
from webapp.runs.selectors import metrics_since

MOST_POINTS = 600


class Group(NamedTuple):
    title: str
    unit: str
    names: str  # a regular expression that the whole name matches


# The first group that a name matches has it; names that none matches get a chart of their own.
GROUPS = (
    Group("Loss", "nats", r"(heldout_)?loss(/ptx)?"),
    Group("Bits per byte", "bits", r"(heldout_)?bits_per_byte"),
    Group("Accuracy on rankings", "share", r"(heldout_)?accuracy.*"),
    Group("Reward", "score", r"objective/(scores|rlhf_reward)|heldout_reward|reward"),
    Group("Disagreement of reward models", "score", r"objective/spread|heldout_spread"),
    Group("KL from the reference", "nats per reply", r"objective/kl|heldout_kl|kl"),
    Group("Length of replies", "tokens", r"length/.*|heldout_length|length"),
    Group("Entropy", "nats", r"(objective/|policy/)?(entropy)(_avg)?"),
    Group("Replies that ended", "share", r"(heldout_)?ended"),
    Group("Tokens per second", "tokens/s", r"tokens_per_second"),
    Group("Policy and value loss", "", r"loss/(policy|value)(_avg)?"),
    Group("Size of the update", "", r"policy/(approxkl|clipfrac)_avg|val/clipfrac_avg"),
    Group("Gradient norm", "", r".*grad_norm"),
    Group("Learning rate", "", r"learning_rate.*"),
    Group("Right where it believes so much", "share", r"(heldout_)?reliability/.*"),
    Group("Time of a step", "seconds", r"time/.*"),
)
FIRST = 10  # charts of this many groups are open from the start, the others fold
HIDDEN = re.compile(r"step|steps|episode|tokens|parameters|skipped|val/num_eos_tokens|val/ratio.*")


def group_of(name: str) -> int:
    """The place of a metric's chart; the number of groups for one that has its own."""
    return next((index for index, group in enumerate(GROUPS) if re.fullmatch(group.names, name)), len(GROUPS))


TRADE = ("heldout_kl", "heldout_reward")  # what a policy pays and what it gets


def charts(runs: list[Run], since: int = 0) -> list[dict[str, Any]]:
    """[{title, unit, series: [{label, run, name, step, value}]}], most telling first, thinned to what is seen.

    A chart whose points do not lie at their steps has `across`, the words for what they lie at, and its series have x.
    """
    by_group: dict[tuple[int, str], dict[str, Any]] = {}
    for run_index, run in enumerate(runs):
        metrics = metrics_since(run, since)
        if traded := trade(metrics):
            chart = by_group.setdefault((group_of(TRADE[1]), "Reward against KL"), {
                "title": "Reward against KL", "unit": "held-out score", "open": True,
                "across": "held-out KL, nats per reply", "series": [],
            })  # fmt: skip
            label = "Held-out reward" if len(runs) == 1 else run.name
            chart["series"].append({"label": label, "name": TRADE[1], "run": run_index} | thinned(traded))
        for name, series in metrics.items():
            if HIDDEN.fullmatch(name):
                continue
            order = group_of(name)
            group = GROUPS[order] if order < len(GROUPS) else Group(metric_label(name), "", "")
            chart = by_group.setdefault(
                (order, group.title), {"title": group.title, "unit": group.unit, "open": order < FIRST, "series": []}
            )
            label = metric_label(name) if len(runs) == 1 else f"{run.name}: {metric_label(name)}"
            chart["series"].append({"label": label, "name": name, "run": run_index} | thinned(series))
    return [by_group[key] for key in sorted(by_group)]


def trade(metrics: dict[str, dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """The steps with both held-out figures; x is the KL, value the reward. Nothing if there are none."""
    kl, reward = (
        dict(zip(metrics[name]["step"], metrics[name]["value"], strict=True)) if name in metrics else {}
        for name in TRADE
    )
    steps = [step for step in kl if step in reward]
    if not steps:
        return {}
    return {"step": steps, "x": [kl[step] for step in steps], "value": [reward[step] for step in steps]}


def thinned(series: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """At most MOST_POINTS of them, evenly spread, the newest always among them."""
    count = len(series["step"])
    stride = -(-count // MOST_POINTS)
    if stride <= 1:
        return series
    indices = range((count - 1) % stride, count, stride)
    return {key: [values[index] for index in indices] for key, values in series.items()}


def metric_label(name: str) -> str:
    """A metric's name as a person reads it."""
    text = re.sub(r"^length/(\w+)$", r"\1 length", name)
    text = text.replace("objective/", "").replace("_avg", "").replace("heldout_", "held-out ")
    text = text.replace("rlhf_reward", "reward after penalties").replace("non_score_reward", "KL penalty")
    text = text.replace("/", ": ").replace("_", " ").replace("scores", "score")
    text = re.sub(r"\b(kl|approxkl)\b", lambda match: {"kl": "KL", "approxkl": "KL of the update"}[match[0]], text)
    return text[:1].upper() + text[1:]
