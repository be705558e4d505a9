"""Pages of blind comparisons."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.comparisons import results, selectors, services
from webapp.comparisons.forms import AskingForm, ComparisonForm
from webapp.comparisons.models import Comparison
from webapp.downloads import download
from webapp.errors import Conflict, TutelageError
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run

PAGE = 25
SHOWN = 20
MODELS = ModelVersion.objects.select_related("project", "parent")
RUNS = Run.objects.select_related("project", "base", "baseline")


@require_safe
@requires("models.view")
def comparison_list(request: Request, project: Project) -> HttpResponse:
    page = Paginator(selectors.comparisons_of(project), PAGE).get_page(request.GET.get("page"))
    rows = [(comparison, selectors.state_of(comparison)) for comparison in page]
    return render(request, "comparisons/list.html", {"project": project, "page": page, "rows": rows})


@require_http_methods(["GET", "HEAD", "POST"])
@requires("runs.manage", MODELS)
def model_compare(request: Request, model: ModelVersion) -> HttpResponse:
    """Begin a comparison of this model with another one."""
    others = selectors.comparable_models(model).exists() and model.deployable
    form = ComparisonForm(request.POST or None, model=model)
    if request.method == "POST" and others and form.is_valid():
        try:
            comparison = services.start_comparison(model=model, by=request.user, **form.values())
        except TutelageError as error:
            field = error.data.get("field")
            form.add_error(field if field in form.fields else None, error.message.partition(": ")[2] or error.message)
        else:
            messages.success(request, "Both models reply now; then people see the pairs when they label.")
            return redirect("comparison_detail", comparison.pk)
    context = {"project": model.project, "model": model, "form": form, "others": others}
    return render(request, "comparisons/form.html", context, status=400 if form.is_bound else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@requires("runs.manage", RUNS)
def run_compare_blind(request: Request, run: Run) -> HttpResponse:
    """The part of an evaluate run's page that leads to people's judgment of its replies, or begins it."""
    if request.method == "POST":
        form = AskingForm(request.POST, project=run.project)
        if not form.is_valid():
            raise Conflict("Say how many people judge each pair, from 1 to 20.")
        begun = services.compare_run(run=run, by=request.user, **form.cleaned_data)
        messages.success(request, "People see the pairs when they label.")
        return redirect("comparison_detail", begun.pk)
    comparison = Comparison.objects.filter(run=run).first()
    form = AskingForm(project=run.project, auto_id="blind_%s")
    return render(request, "comparisons/run.html", {"run": run, "comparison": comparison, "form": form})


@require_safe
@requires("models.view", selectors.COMPARISONS)
def comparison_detail(request: Request, comparison: Comparison) -> HttpResponse:
    context = status_context(comparison)
    if selectors.has_ended(comparison):
        page = Paginator(selectors.live_pairs(comparison), SHOWN).get_page(request.GET.get("page"))
        pairs_of_page = comparison.pairs.filter(pk__in=[pair.pk for pair in page])
        context |= {
            "result": results.result_of(comparison),
            "people": results.people_of(comparison),
            "page": page,
            "shown": results.judged_pairs(comparison, pairs_of_page),
        }
    return render(request, "comparisons/detail.html", context)


@require_safe
@requires("models.view", selectors.COMPARISONS)
def comparison_status(request: Request, comparison: Comparison) -> HttpResponse:
    """State and progress; once it has ended the page is loaded again, for its result."""
    context = status_context(comparison)
    response = render(request, "comparisons/status.html", context)
    if context["state"] not in (Comparison.State.SAMPLING, Comparison.State.JUDGING):
        response["HX-Refresh"] = "true"
    return response


def status_context(comparison: Comparison) -> dict[str, Any]:
    return {
        "project": comparison.project,
        "comparison": comparison,
        "state": selectors.state_of(comparison),
        "progress": selectors.progress_of(comparison),
    }


@require_POST
@requires("runs.manage", selectors.COMPARISONS)
def comparison_stop(request: Request, comparison: Comparison) -> HttpResponse:
    services.stop_comparison(comparison=comparison, by=request.user)
    messages.success(request, "Nobody is asked anymore. What people said so far is kept.")
    return redirect("comparison_detail", comparison.pk)


@require_POST
@requires("runs.manage", selectors.COMPARISONS)
def comparison_continue(request: Request, comparison: Comparison) -> HttpResponse:
    services.continue_comparison(comparison=comparison, by=request.user)
    messages.success(request, "It goes on.")
    return redirect("comparison_detail", comparison.pk)


@require_safe
@requires("models.view", selectors.COMPARISONS)
def comparison_download(request: Request, comparison: Comparison) -> StreamingHttpResponse:
    """Every pair with names and judgments, as JSON lines."""
    if not selectors.has_ended(comparison):
        raise Conflict("The pairs can be taken out when the comparison is done or stopped.")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in results.rows_to_download(comparison))
    return download(request, lines, f"{comparison.project.slug}-comparison-{comparison.pk}.jsonl")
