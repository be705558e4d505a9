"""The data pages: what came in, what people made of it, and the ways in and out."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Task
from annotations.selectors import unasked_prompts
from annotations.services import labels as label_services
from webapp.accounts.access import may, requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.data import selectors
from webapp.data.exports import EXPORTS
from webapp.data.exports.response import exported
from webapp.data.forms import ExportForm, FilterForm
from webapp.data.models import Import
from webapp.datasets.models import Corpus
from webapp.errors import NotFound
from webapp.params import read_int
from webapp.partials import render_page_or_fragment, wants_fragment

PROMPT_FILTERS: dict[str, list[tuple[str, str]]] = {
    "split": list(Prompt.Split.choices),
    "source": list(Prompt.Source.choices),
    "state": [("live", "in use"), ("withdrawn", "withdrawn")],
}
MAX_ASKED = 10_000  # prompts that one click asks annotators about


@require_GET
@requires("data.view")
def overview(request: Request, project: Project) -> HttpResponse:
    context = {
        "project": project,
        "counts": selectors.data_counts(project),
        "corpora": selectors.corpora(project),
        "imports": Import.objects.filter(project=project)[:10],
    }
    return render(request, "data/overview.html", context)


def listing(request: Request, project: Project, tab: str, choices: dict[str, list[tuple[str, str]]]) -> HttpResponse:
    """One of the lists; the same template gives the page and, to htmx, its rows."""
    form = FilterForm(project, request.GET, choices=choices)
    rows = getattr(selectors, tab)(project, form.values())
    rows_page = selectors.page(rows, read_int(request.GET, "before"))
    if tab == "rankings":
        attach_replies(rows_page.rows)
    query = request.GET.copy()
    query.pop("before", None)
    context = {
        "project": project,
        "tab": tab,
        "form": form,
        "page": rows_page,
        "query": query.urlencode(),
        "filtered": bool(query),
    }
    if tab == "prompts" and may(request.user, "data.manage", project) and not wants_fragment(request):
        context["unasked"] = unasked_prompts(rows).order_by()[:MAX_ASKED].count()
    return render_page_or_fragment(
        request, "data/list.html", "data/rows.html", context, as_fragment="before" in request.GET
    )


def attach_replies(rankings: list[Ranking]) -> None:
    """Give each ranking `ordered`: its groups of replies, best first, with their ratings and flags."""
    ordered = selectors.ranked_replies(rankings)
    for ranking in rankings:
        ranking.ordered = ordered[ranking.pk]  # type: ignore[attr-defined]


@require_GET
@requires("data.view")
def prompt_list(request: Request, project: Project) -> HttpResponse:
    return listing(request, project, "prompts", PROMPT_FILTERS)


@require_GET
@requires("data.view")
def demonstration_list(request: Request, project: Project) -> HttpResponse:
    states = [*Demonstration.State.choices, ("retracted", "Withdrawn")]
    return listing(request, project, "demonstrations", {"state": states, "author": selectors.authors(project)})


@require_GET
@requires("data.view")
def ranking_list(request: Request, project: Project) -> HttpResponse:
    states = [("live", "in use"), ("retracted", "withdrawn")]
    return listing(request, project, "rankings", {"state": states, "author": selectors.authors(project)})


@require_GET
@requires("data.view")
def judgment_list(request: Request, project: Project) -> HttpResponse:
    choices = {
        "verdict": [("good", "good"), ("bad", "bad")],
        "state": [("live", "in use"), ("retracted", "withdrawn")],
        "author": selectors.authors(project),
    }
    return listing(request, project, "judgments", choices)


@require_GET
@requires("data.view")
def task_list(request: Request, project: Project) -> HttpResponse:
    return listing(request, project, "tasks", {"kind": Task.Kind.choices, "state": Task.State.choices})


@require_GET
@requires("data.view")
def corpus_detail(request: Request, project: Project, pk: int) -> HttpResponse:
    corpus = get_object_or_404(Corpus, project=project, pk=pk)
    form = FilterForm(project, request.GET, choices={})
    documents_page = selectors.page(
        selectors.documents(corpus, form.values()), read_int(request.GET, "before"), size=20
    )
    context = {
        "project": project,
        "corpus": corpus,
        "form": form,
        "page": documents_page,
        "total": corpus.documents.count(),
    }
    return render(request, "data/corpus.html", context)


@require_POST
@requires("data.manage")
def label_withdraw(request: Request, project: Project, kind: str, pk: int) -> HttpResponseRedirect:
    model: Any = {"demonstration": Demonstration, "ranking": Ranking, "judgment": Judgment}.get(kind)
    if model is None:
        raise NotFound("There is no such kind of label.")
    label = get_object_or_404(model, prompt__project=project, pk=pk)
    label_services.withdraw_label(label=label)
    messages.success(request, "The label is withdrawn: it does not count anymore, and no new snapshot holds it.")
    return redirect("data_prompt", project.slug, label.prompt_id)


@require_GET
@requires("data.view")
def export_page(request: Request, project: Project) -> HttpResponse:
    """What can be taken out of the project, and in which formats."""
    forms = [(kind, ExportForm(project, kind)) for kind in EXPORTS]
    return render(request, "data/export.html", {"project": project, "forms": forms})


@require_GET
@requires("data.view")
def export_rows(request: Request, project: Project, kind: str) -> StreamingHttpResponse:
    """Everything of a kind as a file, in the format that `as` names."""
    return exported(request, project, kind)
