"""The pages of prompts: one with all that hangs on it, and what a manager does with them."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotations.models import Prompt
from annotations.selectors import counted_labels, restorable, tasks_to_restore, unasked_prompts
from annotations.services import prompts as prompt_services
from annotations.services import tasks as task_services
from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.data import selectors
from webapp.data.forms import CheckForm, FilterForm, PromptForm
from webapp.data.views import MAX_ASKED, PROMPT_FILTERS, attach_replies
from webapp.errors import Conflict
from webapp.runs.lineage import models_that_learned_from_rows
from webapp.text import counted


@require_GET
@requires("data.view")
def prompt_detail(request: Request, project: Project, pk: int) -> HttpResponse:
    """Everything that hangs on a prompt: replies, tasks, labels, and the models that learned from them."""
    prompt = get_object_or_404(Prompt, project=project, pk=pk)
    this = Prompt.objects.filter(pk=pk)
    rankings = list(prompt.rankings.select_related("author").order_by("pk"))
    attach_replies(rankings)
    labels: dict[str, list[Any]] = {
        "demonstrations": list(prompt.demonstrations.select_related("author", "response").order_by("pk")),
        "rankings": rankings,
        "judgments": list(prompt.judgments.select_related("author", "response").order_by("pk")),
    }
    rows = {"prompts": [prompt.pk]} | {
        kind: [label.pk for label in rows_of_kind] for kind, rows_of_kind in labels.items()
    }
    context = labels | {
        "project": project,
        "prompt": prompt,
        "check_form": CheckForm.of(prompt),
        "responses": prompt.responses.select_related("author", "model").order_by("pk"),
        "tasks": prompt.tasks.annotate(given=Count("leases", filter=Q(leases__outcome="submitted"))).order_by("pk"),
        "unasked": unasked_prompts(this).exists(),
        "restorable": restorable(this).exists(),
        "comes_back": [
            counted(counted_labels(prompt), "label"),
            counted(tasks_to_restore(this).count(), "task"),
        ],
        "models": models_that_learned_from_rows(rows),
    }
    return render(request, "data/prompt.html", context)


@require_http_methods(["GET", "POST"])
@requires("data.manage")
def prompt_add(request: Request, project: Project) -> HttpResponse:
    form = PromptForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            added = prompt_services.add_and_ask(
                project=project,
                conversations=[[{"role": "user", "content": written.text}] for written in form.prompts()],
                source=Prompt.Source.WRITTEN,
                by=request.user,
                open_tasks=form.cleaned_data["open_tasks"],
                restore=form.cleaned_data["restore"],
            )
        except prompt_services.WithdrawnPrompts as error:
            form.refuse_withdrawn(error)
        else:
            messages.success(request, what_was_added(added))
            return redirect("data_prompts", project.slug)
    return render(request, "data/prompt_add.html", {"project": project, "form": form})


def what_was_added(added: prompt_services.AddedPrompts) -> str:
    """A sentence for each thing that happened."""
    already_there = f"{counted(added.known, 'prompt')} {'was' if added.known == 1 else 'were'} in the project already."
    sentences = [
        f"Added {counted(added.new, 'prompt')}." if added.new or not (added.restored or added.known) else "",
        already_there if added.known else "",
        f"Restored {counted(added.restored, 'prompt')}." if added.restored else "",
        f"Annotators are asked to reply to {counted(added.tasks, 'prompt')}." if added.tasks else "",
    ]
    return " ".join(filter(None, sentences))


@require_POST
@requires("data.manage")
def prompt_check(request: Request, project: Project, pk: int) -> HttpResponse:
    """Save the right answer of a prompt."""
    prompt = get_object_or_404(Prompt, project=project, pk=pk)
    form = CheckForm(request.POST)
    if not form.is_valid():
        problems = [f"{form[name].label}: {' '.join(map(str, errors))}" for name, errors in form.errors.items()]
        messages.error(request, f"Nothing was saved. {' '.join(problems)}")
        return redirect("data_prompt", project.slug, pk)
    check = prompt_services.PromptCheck(form.cleaned_data["reference"], form.cleaned_data["data"])
    prompt_services.set_check(prompt=prompt, check=check)
    messages.success(request, "The right answer is saved. New snapshots hold it.")
    return redirect("data_prompt", project.slug, pk)


@require_POST
@requires("data.manage")
def prompt_withdraw(request: Request, project: Project, pk: int) -> HttpResponseRedirect:
    get_object_or_404(Prompt, project=project, pk=pk)
    prompt_services.withdraw_prompts(prompts=Prompt.objects.filter(project=project, pk=pk))
    messages.success(request, "The prompt is withdrawn: nobody is asked about it, and no new snapshot will hold it.")
    return redirect("data_prompt", project.slug, pk)


@require_POST
@requires("data.manage")
def prompt_restore(request: Request, project: Project, pk: int) -> HttpResponseRedirect:
    prompt = get_object_or_404(Prompt, project=project, pk=pk)
    if not prompt_services.restore_prompts(prompts=Prompt.objects.filter(pk=prompt.pk)):
        if prompt.withdrawn_at is None:
            return redirect("data_prompt", project.slug, pk)  # somebody else was faster
        raise Conflict("This prompt came from a chat and its writer may have taken it back, so it stays withdrawn.")
    messages.success(request, "The prompt is restored: its labels count again and its tasks are open again.")
    return redirect("data_prompt", project.slug, pk)


@require_POST
@requires("data.manage")
def prompt_ask(request: Request, project: Project, pk: int) -> HttpResponseRedirect:
    """Ask annotators to reply to one prompt."""
    prompt = get_object_or_404(Prompt, project=project, pk=pk)
    opened = task_services.open_missing_write_tasks(prompts=Prompt.objects.filter(pk=prompt.pk))
    text = "Annotators are asked to reply to this prompt." if opened else "Annotators have been asked already."
    messages.success(request, text)
    return redirect("data_prompt", project.slug, pk)


@require_POST
@requires("data.manage")
def prompts_ask(request: Request, project: Project) -> HttpResponseRedirect:
    """Ask annotators to reply to the prompts of a filtered list that nobody has been asked about."""
    query = QueryDict(request.POST.get("query", ""))
    form = FilterForm(project, query, choices=PROMPT_FILTERS)
    chosen = unasked_prompts(selectors.prompts(project, form.values())).order_by("id").values("pk")[:MAX_ASKED]
    opened = task_services.open_missing_write_tasks(prompts=Prompt.objects.filter(pk__in=chosen))
    messages.success(request, f"Annotators are asked to reply to {counted(len(opened), 'prompt')}.")
    return redirect(f"{reverse('data_prompts', args=[project.slug])}?{query.urlencode()}")
