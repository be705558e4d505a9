"""The launch form and its estimate of time."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from training.contract import SPECS
from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.datasets.models import Snapshot
from webapp.datasets.selectors import snapshots_of
from webapp.errors import TutelageError
from webapp.params import read_int
from webapp.registry.models import ModelVersion
from webapp.runs import services
from webapp.runs.estimates import Estimate, estimate
from webapp.runs.forms import LaunchForm
from webapp.runs.models import Run
from webapp.runs.selectors import runs_of
from webapp.runs.stages import check_stage_name, settings_of

MODELS = ("base", "tokenizer", "reward", "baseline")


@require_http_methods(["GET", "HEAD", "POST"])
@requires("runs.manage")
def run_launch(request: Request, project: Project, stage: str) -> HttpResponse:
    """The form; a valid one starts the run. `?like=7` fills it in as run 7 was, `?base=3` starts from model 3."""
    check_stage_name(stage)
    like = read_int(request.GET, "like")
    before = None if like is None else runs_of(project, stage=stage).filter(pk=like).first()
    form = LaunchForm(request.POST or None, project=project, stage=stage, like=before)
    base = read_int(request.GET, "base")
    if base is not None and "base" in form.fields:
        form.start_from(base)
    if request.method == "POST" and form.is_valid():
        try:
            run = launch(request, project, stage, form)
        except TutelageError as error:
            field = error.data.get("field")
            form.add_error(field if field in form.fields else None, error.message)
        else:
            messages.success(request, f"{run.name} is in the queue.")
            return redirect("run_detail", run.pk)
    context = {
        "project": project,
        "stage": stage,
        "title": SPECS[stage].title or f"Launch {stage}",
        "action": "Add" if SPECS[stage].names_base else "Launch",
        "about": SPECS[stage].about,
        "estimated": not SPECS[stage].names_base,  # how large a model from elsewhere is, nobody knows yet
        "form": form,
        "estimate": estimate_of(project, stage, form),
        "like": before,
    }
    return render(request, "runs/launch.html", context, status=400 if form.is_bound else 200)


def launch(request: Request, project: Project, stage: str, form: LaunchForm) -> Run:
    values = form.cleaned_data
    spec = SPECS[stage]
    return services.launch_run(
        project=project,
        stage=stage,
        by=request.user,
        name=values["name"],
        config=values["config"],
        snapshots=[values[kind] for kind in spec.snapshots if isinstance(values[kind], Snapshot)],
        freeze=[kind for kind in spec.snapshots if values[kind] is None and spec.learns_from(kind)],
        base_name=values.get("base_name", ""),
        corpus_run=values.get("corpus_run"),
        rank_replies=values.get("rank_replies", False),
        **{name: values.get(name) for name in MODELS},
    )


@require_POST
@requires("runs.manage")
def run_estimate(request: Request, project: Project, stage: str) -> HttpResponse:
    """How long the run would take as the form stands."""
    check_stage_name(stage)
    form = LaunchForm(request.POST, project=project, stage=stage)
    form.is_valid()
    return render(request, "runs/estimate.html", {"estimate": estimate_of(project, stage, form)})


def estimate_of(project: Project, stage: str, form: LaunchForm) -> Estimate | None:
    """None while the form does not fit."""
    if form.is_bound:
        if form.errors:
            return None
        values = form.cleaned_data
        config = settings_of(stage, values["config"])
    else:
        values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
        config = settings_of(stage, {})
    snapshots: list[Snapshot] = []
    for kind in SPECS[stage].snapshots:
        learned = SPECS[stage].learns_from(kind)
        snapshot = values.get(kind) or (snapshots_of(project, kind=kind).first() if learned else None)
        if isinstance(snapshot, Snapshot):
            snapshots.append(snapshot)
    base, corpus_run = values.get("base"), values.get("corpus_run")
    return estimate(
        project,
        stage,
        config,
        snapshots=snapshots,
        corpus_run=corpus_run if isinstance(corpus_run, Run) else None,
        base=base if isinstance(base, ModelVersion) else None,
    )
