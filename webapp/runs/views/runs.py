"""Pages of runs: the list, one run as it goes on, and several side by side."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode
from zlib import crc32

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from training.contract import SPECS
from webapp.accounts.access import may, requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.params import read_choice, read_int, read_ints
from webapp.registry.facts import advised_sampling, sampling_words
from webapp.registry.selectors import live_deployment
from webapp.runs import folders, selectors, services
from webapp.runs.charts import charts, metric_label
from webapp.runs.exports import expires_at
from webapp.runs.forms import control_text, label_of
from webapp.runs.models import Run
from webapp.runs.outputs import output_download, outputs_of
from webapp.runs.stages import LAUNCHED

PAGE = 25
MOST_COMPARED = 8
RUN_STATES = ["active", *Run.State.values]


RUNS = Run.objects.select_related("project", "output", "base", "tokenizer", "reward", "baseline", "corpus_run")


@require_safe
@requires("runs.view")
def run_list(request: HttpRequest, project: Project) -> HttpResponse:
    stage = read_choice(request.GET, "stage", LAUNCHED)
    state = read_choice(request.GET, "state", RUN_STATES)
    page = Paginator(selectors.runs_of(project, stage=stage, state=state), PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "page": page,
        "stage": stage,
        "state": state,
        "stages": [(name, SPECS[name].about) for name in LAUNCHED],
        "states": [("active", "Not ended"), *Run.State.choices],
    }
    return render(request, "runs/list.html", context)


@require_safe
@requires("runs.view", RUNS)
def run_detail(request: Request, run: Run) -> HttpResponse:
    context = (
        status_context(run)
        | activity_context(run)
        | {
            "address": metrics_address(run.project, [run]),
            "settings": [
                (metric_label(name), control_text(value) if isinstance(value, list) else value)
                for name, value in selectors.flattened(run.config).items()
                if name != "stage"
            ],
            "proposed": proposed_settings(run),
            "snapshots": run.snapshots.all(),
            "figures": run.evaluations.select_related("model"),
            "counts": run.result.get("counts", {}),
            "outputs": outputs_of(run),
            "deploys": (deploys := offers_chat(request, run)),
            "advised": sampling_words(advised_sampling(run.output)) if deploys and run.output else "",
            "exports": SPECS[run.stage].exports,
            "expires_at": expires_at(run) if SPECS[run.stage].exports else None,
            "asks_judges": "/judges/reward/" in json.dumps(run.config),
        }
    )
    return render(request, "runs/detail.html", context)


def offers_chat(request: Request, run: Run) -> bool:
    """Whether the run added a model that could go live at once: nothing else is."""
    return (
        SPECS[run.stage].names_base
        and run.output is not None
        and run.output.deployable
        and live_deployment(run.project) is None
        and may(request.user, "models.deploy", run.project)
    )


def proposed_settings(run: Run) -> list[tuple[str, str, str]]:
    """(name, value, why) of the settings that nobody chose, in the words of the launch form."""
    values = selectors.flattened(run.config)
    return [
        (label_of(name), control_text(values[name]), why)
        for name, why in sorted(run.proposed.items())
        if name in values
    ]


@require_safe
@requires("runs.view", RUNS)
def run_status(request: Request, run: Run) -> HttpResponse:
    """The part of a run's page that changes every few seconds. Where the run's state is another one than the page was
    made for, the whole page is loaded again, for its result is on it."""
    response = render(request, "runs/status.html", status_context(run))
    if not run.active:
        response["HX-Refresh"] = "true"
    return response


@require_safe
@requires("runs.view", RUNS)
def run_activity(request: Request, run: Run) -> HttpResponse:
    """Samples, warnings and the log; nothing if they are as the page has them, so that what is read is not moved."""
    context = activity_context(run)
    if request.GET.get("at") == context["at"]:
        return HttpResponse(status=204)
    return render(request, "runs/activity.html", context)


def status_context(run: Run) -> dict[str, Any]:
    share = run.step / run.total if run.total else None
    metrics = selectors.last_metrics(run)
    latest = {metric_label(name): value for name, value in sorted(metrics.items()) if name in HEADLINES}
    resumable = run.state in (Run.State.CANCELLED, Run.State.FAILED)
    return {
        "run": run,
        "project": run.project,
        "share": share,
        "learns": SPECS[run.stage].learns,
        "latest": latest,
        "resumable": resumable,
        "has_checkpoint": resumable and folders.has_checkpoint(run),
    }


HEADLINES = {
    "loss", "heldout_loss", "bits_per_byte", "accuracy", "heldout_accuracy", "objective/scores", "objective/kl",
    "length/mean", "heldout_reward", "tokens_per_second",
}  # fmt: skip


def activity_context(run: Run) -> dict[str, Any]:
    log = folders.log_tail(run)
    return {
        "run": run,
        "learns": SPECS[run.stage].learns,
        "samples": selectors.samples_of(run),
        "warnings": selectors.warnings_of(run),
        "tracked": selectors.tracked_pages(run),
        "log": log,
        "at": activity_mark(run, log),
    }


def activity_mark(run: Run, log: str) -> str:
    """What tells one state of samples, warnings and log from the next, in every web process alike."""
    return f"{run.events_read}-{len(log)}-{crc32(log[-200:].encode())}"


@require_safe
@requires("runs.view")
def run_metrics(request: HttpRequest, project: Project) -> JsonResponse:
    """Points of one or several runs' charts, from a step on: ?run=1&run=2&since=100."""
    runs = chosen_runs(request, project)
    since = read_int(request.GET, "since", 0)
    return JsonResponse({"charts": charts(runs, since), "active": any(run.active for run in runs)})


def metrics_address(project: Project, runs: list[Run]) -> str:
    """Where the charts of these runs get their points."""
    return f"{reverse('run_metrics', args=[project.slug])}?{urlencode([('run', run.pk) for run in runs])}"


@require_safe
@requires("runs.view")
def run_compare(request: HttpRequest, project: Project) -> HttpResponse:
    runs = chosen_runs(request, project)
    figures = sorted({name for run in runs for name in run.result.get("metrics", {})})
    table = [(metric_label(name), [run.result.get("metrics", {}).get(name) for run in runs]) for name in figures]
    context = {
        "project": project,
        "runs": runs,
        "address": metrics_address(project, runs),
        "differences": [(metric_label(name), values) for name, values in selectors.config_differences(runs)],
        "figures": table,
    }
    return render(request, "runs/compare.html", context)


def chosen_runs(request: HttpRequest, project: Project) -> list[Run]:
    """The project's runs that the address names, in that order."""
    inputs = ("base", "tokenizer", "reward", "baseline", "corpus_run")
    ids = read_ints(request.GET, "run")[:MOST_COMPARED]
    runs_by_id = selectors.runs_of(project).select_related(*inputs).in_bulk(ids)
    return [runs_by_id[pk] for pk in dict.fromkeys(ids) if pk in runs_by_id]


@require_POST
@requires("runs.manage", RUNS)
def run_stop(request: Request, run: Run) -> HttpResponse:
    services.request_stop(run=run, by=request.user)
    messages.success(request, f"{run.name} stops at its next safe point and can be resumed from there.")
    return redirect("run_detail", run.pk)


@require_POST
@requires("runs.manage", RUNS)
def run_resume(request: Request, run: Run) -> HttpResponse:
    services.resume_run(run=run, by=request.user)
    messages.success(request, f"{run.name} is in the queue again and goes on from its last checkpoint.")
    return redirect("run_detail", run.pk)


@require_POST
@requires("runs.manage", RUNS)
def run_retry(request: Request, run: Run) -> HttpResponse:
    run = services.retry(run=run, by=request.user)
    messages.success(request, f"{run.name} was launched with the same inputs and settings.")
    return redirect("run_detail", run.pk)


@require_POST
@requires("runs.manage", RUNS)
def run_import(request: Request, run: Run) -> HttpResponse:
    """Make rank tasks of a sample run's replies."""
    opened = services.import_samples(run=run)
    messages.success(
        request, f"{opened} tasks to rank were opened." if opened else "These replies are with people already."
    )
    return redirect("run_detail", run.pk)


@require_safe
@requires("runs.view", RUNS)
def run_output(request: Request, run: Run, name: str) -> HttpResponseBase:
    """A file that the run left."""
    return output_download(request, run, name)
