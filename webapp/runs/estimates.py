"""How long a run will take, from runs like it or, before there are any, from a rule of thumb.

A stage's work is counted in floating-point operations: 6 for each parameter and token learned from, 2 for each
parameter and token read or generated (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). How many of them a machine
does a second is taken from the project's last runs of the stage. Without any, a rule of thumb holds for the CPU cores
that the training worker reported; of a GPU nothing is said before its first run.

Computed rewards take time of their own, which no processor of ours makes shorter: programs that are run, servers that
are asked. It is counted in seconds per reply, as measured by past runs with the same rewards, else by a rule of thumb.
"""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from training.contract import SPECS
from webapp.accounts.models import Project
from webapp.datasets.models import Snapshot
from webapp.errors import BadInput
from webapp.registry.models import ModelVersion
from webapp.runs.machines import newest_machine
from webapp.runs.models import Run
from webapp.runs.reward_fields import servers_of
from webapp.runs.stages import settings_of

RULE_OF_THUMB = 30e9  # floating-point operations a second that small models reach on two CPU cores
LARGE_RULE = 120e9  # and models from 0.1B on: SmolLM2-135M, between 90e9 (DPO, on a busy machine) and 210e9 (PPO)
MAX_CORES = 16  # beyond which more of them hardly help
START = 12.0  # seconds that any run takes to start and to save
CHARACTERS_A_TOKEN = 4.0
LARGE_PARAMETERS = 50_000_000
UNKNOWN_PARAMETERS = 3_000_000
PAIR_WORK = 4.0  # DPO reads a reply in about three pairs, and with the reference, too
CODE_SECONDS = 0.2  # that a reply's program takes with its tests, its start included
SERVER_SECONDS = 0.1  # that a server of somebody's takes for a reply; judges know their own
TEXT_A_SECOND = 400_000.0  # characters that cleaning and tokenizer training get through


class Estimate(NamedTuple):
    seconds: float | None  # None: the first run on this device will tell
    measured: bool  # from past runs, not from the rule of thumb
    rewards: float = 0.0  # seconds of it for computed rewards


class Unfrozen(NamedTuple):
    """What new snapshots would hold."""

    characters: float = 0.0
    train: int = 0  # rows
    heldout: int = 0


NOTHING = Unfrozen()


def estimate(
    project: Project,
    stage: str,
    config: dict[str, Any],
    *,
    snapshots: list[Snapshot],
    corpus_run: Run | None,
    base: ModelVersion | None,
    unfrozen: Unfrozen = NOTHING,
) -> Estimate:
    """How long a run on these snapshots takes, and on new ones that would hold what is `unfrozen`."""
    work = work_of(stage, config, snapshots, corpus_run, base, unfrozen)
    speeds, reward_rates = [], []
    terms = reward_sources(config)
    past = Run.objects.filter(project=project, stage=stage, state=Run.State.SUCCEEDED).order_by("-id")
    for run in past.select_related("base", "corpus_run").prefetch_related("snapshots")[:5]:
        seconds = run.result.get("seconds", {}).get("total", 0.0)
        if seconds > 0:
            try:
                used = settings_of(stage, {key: value for key, value in run.config.items() if key != "stage"})
            except BadInput:  # of an earlier version, whose settings are refused by now
                continue
            scoring = float(run.result.get("seconds", {}).get("score", 0.0)) if reward_sources(used) else 0.0
            if scoring and reward_sources(used) == terms:
                reward_rates.append(scoring / max(1.0, replies_of(stage, used, list(run.snapshots.all()))))
            seconds = max(seconds - scoring, 0.0)
            done = work_of(stage, used, list(run.snapshots.all()), run.corpus_run, run.base)
            if done > 0 and seconds > 0:  # one that had nothing to read tells nothing
                speeds.append(done / max(seconds - START, 0.2 * seconds) / processes_of(used))
    speed = median(speeds) if speeds else usual_speed(stage, parameters_of(config, base))
    per_reply = median(reward_rates) if reward_rates else reward_seconds(project, config)
    scoring = per_reply * replies_of(stage, config, snapshots, unfrozen) if terms else 0.0
    seconds = START + work / speed / processes_of(config) + scoring if speed else None
    if minutes := float(config.get("minutes") or 0):
        limit = START + 60 * minutes
        seconds = limit if seconds is None else min(seconds, limit)
    return Estimate(seconds, bool(speeds), scoring)


def reward_sources(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Which computed rewards a run has, as far as their time goes."""
    return sorted((str(term.get("kind")), str(term.get("url", ""))) for term in config.get("rewards") or [])


def reward_seconds(project: Project, config: dict[str, Any]) -> float:
    """What computed rewards take for one reply by the rule of thumb. Those that compare texts take next to nothing."""
    kinds = reward_sources(config)
    servers = {server.url: server for server in servers_of(project)} if any(url for _, url in kinds) else {}
    seconds = 0.0
    for kind, url in kinds:
        if kind == "code":
            seconds += CODE_SECONDS / programs_at_once()
        elif kind == "url":
            seconds += (servers[url].seconds or 0.0) if url in servers else SERVER_SECONDS
    return seconds


def programs_at_once() -> int:
    """As training/preferences/code_reward.py runs them."""
    machine = newest_machine()
    return max(1, min(8, (machine[1].cores if machine else 2) // 2))


def processes_of(config: dict[str, Any]) -> int:
    """Which share the work, each on a device of its own."""
    return int(config.get("processes") or 1)


def usual_speed(stage: str, parameters: float) -> float | None:
    """Operations, or characters of the stages that only read text, per second; None on a GPU, which nobody measured."""
    if stage in ("corpus", "tokenizer"):
        return TEXT_A_SECOND
    machine = newest_machine()
    if parameters < LARGE_PARAMETERS:
        return RULE_OF_THUMB
    if machine and machine[1].kind == "cuda":
        return None
    cores = min(machine[1].cores, MAX_CORES) if machine else 2
    return LARGE_RULE * max(1, cores) / 2


def parameters_of(config: dict[str, Any], base: ModelVersion | None) -> float:
    return float((base.parameters if base else None) or size_of(config))


def work_of(
    stage: str,
    config: dict[str, Any],
    snapshots: list[Snapshot],
    corpus_run: Run | None,
    base: ModelVersion | None,
    unfrozen: Unfrozen = NOTHING,
) -> float:
    """Floating-point operations; characters for the stages that only read text."""
    characters = unfrozen.characters + float(sum(snapshot.counts.get("characters", 0) for snapshot in snapshots))
    if corpus_run and stage in ("tokenizer", "pretrain"):
        characters += corpus_characters(corpus_run)
    if stage in ("corpus", "tokenizer"):
        return characters
    parameters = parameters_of(config, base)
    if SPECS[stage].generates:
        return (
            parameters
            * generated(stage, config, snapshots, unfrozen)
            * (2 + (6 * config.get("epochs", 1) + 6 if SPECS[stage].learns else 0))
        )
    tokens = characters / CHARACTERS_A_TOKEN * float(config.get("epochs", 1))
    if max_steps := config.get("max_steps"):
        tokens = min(tokens, float(max_steps) * config["batch_tokens"])
    return 6 * parameters * tokens * float(config.get("ensemble", 1)) * (PAIR_WORK if stage == "dpo" else 1)


def generated(stage: str, config: dict[str, Any], snapshots: list[Snapshot], unfrozen: Unfrozen) -> float:
    """Tokens of prompts and replies; a reply is taken to be two thirds of the longest allowed."""
    sampling = config.get("sampling", {})
    return float(sampling.get("max_new_tokens", 96) * 2 / 3 + 40) * replies_of(stage, config, snapshots, unfrozen)


def replies_of(stage: str, config: dict[str, Any], snapshots: list[Snapshot], unfrozen: Unfrozen = NOTHING) -> float:
    """How many replies a stage that generates draws."""
    if not SPECS[stage].generates:
        return 0.0
    if SPECS[stage].learns:
        return float(config["steps"] * config["prompts_per_step"] * config.get("samples_per_prompt", 1))
    splits = ("heldout",) if stage == "evaluate" else ("train", "heldout")
    rows = sum(snapshot.counts.get(split, 0) for snapshot in snapshots for split in splits)
    rows += sum(getattr(unfrozen, split) for split in splits)
    return float(rows * config.get("replies", 1))


def corpus_characters(run: Run) -> float:
    counts = run.result.get("counts", {})
    counted_characters = counts.get("characters") or counts.get("characters_kept")
    return float(counted_characters or sum(snapshot.counts.get("characters", 0) for snapshot in run.snapshots.all()))


def size_of(config: dict[str, Any]) -> float:
    """Parameters of a model made from scratch: 12 times layers times the width squared, and its embeddings."""
    if "hidden" not in config:
        return UNKNOWN_PARAMETERS
    return float(12 * config["layers"] * config["hidden"] ** 2 + 2048 * config["hidden"])
