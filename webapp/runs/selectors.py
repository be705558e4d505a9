"""Reads of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet

from training.contract import TRACKERS, SampleRow
from webapp.accounts.models import Project
from webapp.errors import Conflict
from webapp.runs.models import Metric, Run, RunEvent
from webapp.runs.outputs import read_sample_rows

SAMPLES = "samples.jsonl"


def runs_of(project: Project, *, stage: str = "", state: str = "") -> QuerySet[Run]:
    """The project's runs, newest first; `state` may be `active` for all that have not ended."""
    runs = Run.objects.filter(project=project).select_related("output", "created_by", "project")
    if stage:
        runs = runs.filter(stage=stage)
    if state == "active":
        return runs.filter(state__in=Run.ACTIVE)
    return runs.filter(state=state) if state else runs


def latest_succeeded(project: Project, stage: str) -> Run | None:
    return runs_of(project, stage=stage, state=Run.State.SUCCEEDED).first()


def succeeded_corpus_runs(project: Project) -> QuerySet[Run]:
    return runs_of(project, stage="corpus", state=Run.State.SUCCEEDED)


def run_samples(run: Run) -> Iterator[SampleRow]:
    """The replies that a sample or evaluate run kept. Raises Conflict if it kept none."""
    address = run.outputs.get(SAMPLES)
    if not address:
        raise Conflict(f"{run.name} has no replies: only sample and evaluate runs that have succeeded keep them.")
    yield from read_sample_rows(address)


def metric_series(run: Run, name: str) -> list[tuple[int, float | None]]:
    return list(run.metrics.filter(name=name).order_by("step").values_list("step", "value"))


def last_metrics(run: Run) -> dict[str, float]:
    """The newest value of every metric, by name."""
    newest = Metric.objects.filter(run=run).order_by("name", "-step").distinct("name")
    return {metric.name: metric.value for metric in newest if metric.value is not None}


def metrics_since(run: Run, step: int, *, limit: int = 50_000) -> dict[str, dict[str, list[float | int | None]]]:
    """{name: {"step": […], "value": […]}} of what is at or after a step, in order."""
    series_of: dict[str, dict[str, list[float | int | None]]] = {}
    rows = run.metrics.filter(step__gte=step).order_by("name", "step").values_list("name", "step", "value")[:limit]
    for name, at, value in rows:
        series = series_of.setdefault(name, {"step": [], "value": []})
        series["step"].append(at)
        series["value"].append(value)
    return series_of


def samples_of(run: Run, limit: int = 12) -> list[RunEvent]:
    """The newest replies that a run showed while it went on."""
    return list(run.events.filter(type="sample").order_by("-position")[:limit])


def warnings_of(run: Run) -> list[RunEvent]:
    """Each warning once, in order: a resumed run says some of them again."""
    by_message: dict[str, RunEvent] = {}
    for event in run.events.filter(type="warning").order_by("position"):
        by_message.setdefault(str(event.data.get("message")), event)
    return list(by_message.values())


def tracked_pages(run: Run) -> list[dict[str, str]]:
    """Where experiment trackers show the run: title, url (empty if it is on no page) and note, as told last."""
    newest = {event.data["tracker"]: event.data for event in run.events.filter(type="tracked").order_by("position")}
    return [
        {
            "title": TRACKERS.get(name, name),
            "url": data["url"] if data["url"].startswith(("http://", "https://")) else "",
            "note": data["note"],
        }
        for name, data in newest.items()
    ]


def config_differences(runs: list[Run]) -> list[tuple[str, list[Any]]]:
    """The settings and inputs in which runs differ: (name, value in each run)."""
    flat = [flattened(run.config) | inputs_of(run) for run in runs]
    names = sorted({name for config in flat for name in config})
    rows = [(name, [config.get(name, "–") for config in flat]) for name in names]
    return [(name, values) for name, values in rows if len({json.dumps(value, default=str) for value in values}) > 1]


def flattened(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def inputs_of(run: Run) -> dict[str, str]:
    """What a run was given, by name, as words."""
    inputs = {
        "base": run.base.name if run.base else run.source_name,
        "tokenizer": run.tokenizer and run.tokenizer.name,
        "reward": run.reward and run.reward.name,
        "baseline": run.baseline and run.baseline.name,
        "corpus run": run.corpus_run and run.corpus_run.name,
    } | {snapshot.kind: snapshot.name for snapshot in run.snapshots.all()}
    return {name: str(value) for name, value in inputs.items() if value}
