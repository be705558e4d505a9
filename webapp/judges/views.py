"""Pages of judges."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.errors import BadInput, TutelageError
from webapp.judges import jobs, selectors, services
from webapp.judges.forms import AgreementForm, CompareForm, JudgeForm, TryForm
from webapp.judges.models import Judge, JudgeJob
from webapp.judges.services import SETTINGS
from webapp.params import read_int

PAGE = 25
SHOWN = 20
JUDGES = Judge.objects.select_related("project", "own_model__project", "created_by")
JOBS = JudgeJob.objects.select_related("judge__project", "judge__own_model__project", "run", "created_by")


@require_safe
@requires("models.view")
def judge_list(request: Request, project: Project) -> HttpResponse:
    archived = request.GET.get("archived") == "1"
    page = Paginator(selectors.judges_of(project, archived=archived), PAGE).get_page(request.GET.get("page"))
    usage, agreement = selectors.usage_by_judge(list(page)), selectors.last_agreements(list(page))
    rows = [(judge, usage[judge.pk], agreement.get(judge.pk)) for judge in page]
    context = {
        "project": project,
        "page": page,
        "rows": rows,
        "archived": archived,
        "has_archived": selectors.judges_of(project, archived=True).exists(),
    }
    return render(request, "judges/list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@requires("runs.manage")
def judge_add(request: Request, project: Project) -> HttpResponse:
    rubric = project.guidelines.order_by("-version").values_list("text", flat=True).first() or ""
    form = JudgeForm(request.POST or None, project=project, initial={"rubric": rubric})
    if request.method == "POST" and form.is_valid():
        values = form.values()
        if judge := saved(form, lambda: services.add_judge(project=project, by=request.user, **values)):
            messages.success(request, f"{judge.name} was added. Try it on a pair first.")
            return redirect("judge_detail", judge.pk)
    context = {"project": project, "form": form, "judge": None}
    return render(request, "judges/form.html", context, status=400 if form.is_bound else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@requires("runs.manage", JUDGES)
def judge_edit(request: Request, judge: Judge) -> HttpResponse:
    initial = {name: getattr(judge, name) for name in SETTINGS}
    form = JudgeForm(request.POST or None, project=judge.project, judge=judge, initial=initial)
    if request.method == "POST" and form.is_valid():
        values = form.values()
        if saved(form, lambda: services.change_judge(judge=judge, **values)):
            messages.success(request, "Saved. What it was asked before keeps the rubric that it had then.")
            return redirect("judge_detail", judge.pk)
    context = {"project": judge.project, "form": form, "judge": judge}
    return render(request, "judges/form.html", context, status=400 if form.is_bound else 200)


def saved(form: Any, save: Any) -> Judge | None:
    """What `save` returns; its objections stand at the fields that they are about."""
    try:
        judge: Judge = save()
    except ValidationError as error:
        form.add_error(None, error.messages)
    except TutelageError as error:
        field = error.data.get("field")
        form.add_error(field if field in form.fields else None, error.message)
    else:
        return judge
    return None


@require_safe
@requires("models.view", JUDGES)
def judge_detail(request: Request, judge: Judge) -> HttpResponse:
    runs = selectors.comparable_runs(judge.project)
    used = selectors.usage(judge.calls.all())
    context = {
        "project": judge.project,
        "judge": judge,
        "usage": used,
        "thousand_seconds": 1000 * (used.seconds or 0.0) / judge.parallel,
        "thousand_cost": 1000 * (used.cost_per_call or 0.0),
        "agreement": selectors.last_agreement(judge),
        "jobs": Paginator(selectors.jobs_of(judge), PAGE).get_page(request.GET.get("page")),
        "pair": services.ranked_pair(judge),
        "try_form": TryForm(auto_id="try_%s"),
        "compare_form": CompareForm(runs=runs) if runs.exists() else None,
        "agreement_form": AgreementForm(),
    }
    return render(request, "judges/detail.html", context)


@require_POST
@requires("runs.manage", JUDGES)
def judge_try(request: Request, judge: Judge) -> HttpResponse:
    """What was typed, or, where nothing was, a ranked pair of the project."""
    form = TryForm(request.POST)
    if request.POST.get("ranked"):
        pair = services.ranked_pair(judge, ranking_id=read_int(request.POST, "ranked"))
        if pair is None:
            raise BadInput("This ranking is gone. Choose another pair, or type a prompt and replies.")
        job = services.start_job(judge=judge, by=request.user, kind=JudgeJob.Kind.TRY, data=pair)
    elif form.is_valid():
        values = form.cleaned_data
        replies = [values["first"], values["second"]]
        job = services.start_try(judge=judge, by=request.user, prompt=values["prompt"], replies=replies)
    else:
        raise BadInput("Give a prompt and the replies to judge.")
    return redirect("judge_job", job.pk)


@require_POST
@requires("runs.manage", JUDGES)
def judge_compare(request: Request, judge: Judge) -> HttpResponse:
    form = CompareForm(request.POST, runs=selectors.comparable_runs(judge.project))
    if not form.is_valid():
        raise BadInput("Choose an evaluate run that has kept its replies.")
    job = services.start_comparison(judge=judge, by=request.user, run=form.cleaned_data["run"])
    return redirect("judge_job", job.pk)


@require_POST
@requires("runs.manage", JUDGES)
def judge_agreement(request: Request, judge: Judge) -> HttpResponse:
    form = AgreementForm(request.POST)
    if not form.is_valid():
        raise BadInput("Say how many ranked pairs to take.")
    job = services.start_agreement(judge=judge, by=request.user, size=form.cleaned_data["size"])
    return redirect("judge_job", job.pk)


@require_POST
@requires("runs.manage", JUDGES)
def judge_archive(request: Request, judge: Judge) -> HttpResponse:
    if judge.archived_at is None:
        services.archive_judge(judge=judge)
        messages.success(request, f"{judge.name} is archived. Its answers and figures are kept.")
    else:
        services.restore_judge(judge=judge)
        messages.success(request, f"{judge.name} is back.")
    return redirect("judge_list", judge.project.slug)


@require_POST
@requires("runs.manage", JUDGES)
def judge_new_address(request: Request, judge: Judge) -> HttpResponse:
    services.renew_reward_address(judge=judge)
    messages.success(request, "The reward address is new. Runs with the old one get no more scores.")
    return redirect("judge_detail", judge.pk)


# --------------------------------------------------------------------------------------------------------------- jobs


@require_safe
@requires("models.view", JOBS)
def judge_job(request: Request, job: JudgeJob) -> HttpResponse:
    start = SHOWN * (read_int(request.GET, "page", 1, low=1, high=1_000_000) - 1)
    problem, total = "", 0
    rows_of_page: list[selectors.Shown] = []
    try:
        rows_of_page, total = selectors.shown_items(job, start, start + SHOWN)
    except TutelageError as error:
        problem = error.message
    page = Paginator(range(total), SHOWN).get_page(request.GET.get("page"))
    context = {
        "project": job.project, "job": job, "shown": rows_of_page, "page": page, "problem": problem,
        "usage": selectors.usage(job.calls.all()),
    }  # fmt: skip
    return render(request, "judges/job.html", context)


@require_safe
@requires("models.view", JOBS)
def judge_job_status(request: Request, job: JudgeJob) -> HttpResponse:
    """The job's state; once it has ended the page is loaded again, for its result."""
    context = {"job": job, "usage": selectors.usage(job.calls.all())}
    response = render(request, "judges/status.html", context)
    if not job.active:
        response["HX-Refresh"] = "true"
    return response


@require_POST
@requires("runs.manage", JOBS)
def judge_job_stop(request: Request, job: JudgeJob) -> HttpResponse:
    jobs.request_stop(job)
    messages.success(request, "It stops when the answers under way are there.")
    return redirect("judge_job", job.pk)


@require_POST
@requires("runs.manage", JOBS)
def judge_job_continue(request: Request, job: JudgeJob) -> HttpResponse:
    jobs.go_on_with(job, by=request.user)
    messages.success(request, "It goes on. Nothing that is answered is asked again.")
    return redirect("judge_job", job.pk)
