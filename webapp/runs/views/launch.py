"""The launch form and its advice."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from training.contract import MODEL_FILES, SPECS
from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.datasets.models import Snapshot
from webapp.errors import TutelageError
from webapp.params import read_int, read_text
from webapp.runs import services
from webapp.runs.additions import addition_of, count, file_in, source_of_folder
from webapp.runs.advice import Advice, advise
from webapp.runs.forms import LaunchForm
from webapp.runs.machines import listed_models
from webapp.runs.models import Run
from webapp.runs.selectors import runs_of
from webapp.runs.stages import check_stage_name


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
    advice = advise(project, stage, form)
    if request.method == "POST" and form.is_valid():
        try:
            run = launch(request, project, stage, form, advice)
        except TutelageError as error:
            field = error.data.get("field")
            form.add_error(field if field in form.fields else None, error.message)
        else:
            messages.success(request, f"{run.name} is in the queue.")
            return redirect("run_detail", run.pk)
    if advice is not None:
        form.show(advice.proposals)
    context = {
        "project": project,
        "stage": stage,
        "title": SPECS[stage].title or f"Launch {stage}",
        "action": "Add" if SPECS[stage].names_base else "Launch",
        "about": SPECS[stage].about,
        "estimated": not SPECS[stage].names_base,  # how large a model from elsewhere is, nobody knows yet
        "form": form,
        "advice": advice,
        "like": before,
        "endings": MODEL_FILES,
        "found_models": found_models() if SPECS[stage].names_base else [],
        "max_upload": settings.MODEL_UPLOAD_MAX,
    }
    return render(request, "runs/launch.html", context, status=400 if form.is_bound else 200)


def found_models() -> list[dict[str, Any]]:
    """The models that training machines list, each with what adding it takes."""
    return [
        model | {"addition": count(source_of_folder(model["path"], model["bytes"]), rewritten=False)}
        for model in listed_models()
    ]


def launch(request: Request, project: Project, stage: str, form: LaunchForm, advice: Advice | None) -> Run:
    """With the settings that the form showed, whatever would be proposed by now."""
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
        upload=values.get("upload"),
        corpus_run=values.get("corpus_run"),
        rank_replies=values.get("rank_replies", False),
        proposed=advice.kept_in(values["config"], form.chosen()) if advice else {},
        base=values.get("base"),
        tokenizer=values.get("tokenizer"),
        reward=values.get("reward"),
        baseline=values.get("baseline"),
    )


@require_POST
@requires("runs.manage")
def run_rewards(request: Request, project: Project, stage: str) -> HttpResponse:
    """The rewards of the form as it stands, with one more term of the kind that `another_reward` names."""
    check_stage_name(stage)
    form = LaunchForm(project=project, stage=stage)
    if form.takes_rewards:
        form.show_as_typed(request.POST)
    return render(request, "runs/rewards.html", {"project": project, "stage": stage, "form": form})


def addition_context(request: Request) -> dict[str, Any]:
    """What the model that the form names takes, or why that cannot be said."""
    form = request.POST
    name = read_text(form, "base_name").strip()
    try:
        file = file_in(form)
        if not name and file is None:
            return {}
        template, revision = read_text(form, "chat_template") or "keep", read_text(form, "revision").strip()
        addition = addition_of(request.user, base_name=name, revision=revision, template=template, file=file)
    except TutelageError as error:
        return {"problem": error.message.partition(": ")[2] or error.message}
    return {"addition": addition, "unknown": addition is None}


@require_POST
@requires("runs.manage")
def run_advice(request: Request, project: Project, stage: str) -> HttpResponse:
    """Proposed settings, memory and time for the form as it stands."""
    check_stage_name(stage)
    if SPECS[stage].names_base:
        return render(request, "runs/addition.html", addition_context(request))
    form = LaunchForm(request.POST, project=project, stage=stage)
    form.is_valid()
    return render(request, "runs/advice.html", {"advice": advise(project, stage, form)})
