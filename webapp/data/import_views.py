"""The pages of imports: hand a file in, see what is in it, then take it or leave it."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRedirect

from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.bodies import takes_large_body
from webapp.data import reading, services
from webapp.data.forms import ImportForm, OptionsForm
from webapp.data.models import Import
from webapp.data.preview import brought_in, preview_samples
from webapp.errors import BadInput
from webapp.partials import render_page_or_fragment

State = Import.State


@takes_large_body(services.MAX_BYTES)
@require_http_methods(["GET", "POST"])
@requires("data.manage")
def import_new(request: Request, project: Project) -> HttpResponse:
    """The form. What was typed survives an error; where scripts run, so does the chosen file."""
    form = ImportForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            record = services.start_import(
                project=project, by=request.user, upload=form.cleaned_data["file"], **form.options()
            )
        except BadInput as error:
            form.add_error("file", error.message)
        else:
            address = reverse("data_import", args=[project.slug, record.pk])
            return HttpResponseClientRedirect(address) if request.htmx else redirect(address)
    status = 400 if form.errors and not request.htmx else 200  # htmx shows no answer that is an error
    return render(request, "data/import_new.html", {"project": project, "form": form}, status=status)


@require_GET
@requires("data.view")
def import_detail(request: Request, project: Project, pk: int) -> HttpResponse:
    record = get_object_or_404(Import, project=project, pk=pk)
    context = import_context(record, OptionsForm(initial=given_options(record)))
    return render_page_or_fragment(request, "data/import.html", "data/import_state.html", context)


def given_options(record: Import) -> dict[str, object]:
    return {
        "kind": record.kind,
        "corpus": record.corpus,
        "licence": record.licence,
        "open_tasks": record.open_tasks,
        "skip_bad": record.skip_bad or record.blocked,  # what must be chosen to go on
    }


def import_context(record: Import, form: OptionsForm) -> dict[str, object]:
    return {
        "project": record.project,
        "import": record,
        "form": form,
        "progress": reading.import_progress(record) if record.active else {},
        "samples": preview_samples(record.report),
        "brought_in": brought_in(record),
        "kept_days": services.KEPT_DAYS,
    }


@require_POST
@requires("data.manage")
def import_confirm(request: Request, project: Project, pk: int) -> HttpResponse:
    """Import it as it was checked."""
    record = get_object_or_404(Import, project=project, pk=pk)
    form = OptionsForm(request.POST)
    if not form.is_valid():
        return render(request, "data/import.html", import_context(record, form), status=400)
    if checked_as(record, form):
        services.confirm(record=record, **form.options())
    else:
        services.check_again(record=record, **form.options())
        messages.info(request, "You changed how the file is read, so it is checked again first.")
    return redirect("data_import", project.slug, pk)


def checked_as(record: Import, form: OptionsForm) -> bool:
    """Whether what the person saw is what would come in: only what does not change the preview was changed."""
    return form.options()["kind"] == record.kind


@require_POST
@requires("data.manage")
def import_check(request: Request, project: Project, pk: int) -> HttpResponse:
    record = get_object_or_404(Import, project=project, pk=pk)
    form = OptionsForm(request.POST)
    if not form.is_valid():
        return render(request, "data/import.html", import_context(record, form), status=400)
    services.check_again(record=record, **form.options())
    return redirect("data_import", project.slug, pk)


@require_POST
@requires("data.manage")
def import_cancel(request: Request, project: Project, pk: int) -> HttpResponseRedirect:
    record = get_object_or_404(Import, project=project, pk=pk)
    services.cancel(record=record)
    record.refresh_from_db()
    if record.active:
        messages.info(request, "The import is stopping. None of its rows will be kept.")
    else:
        messages.success(request, "Cancelled. Nothing was imported, and the file is deleted.")
    return redirect("data_import", project.slug, pk)
