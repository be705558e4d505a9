"""Pages of projects: list, detail, settings, guidelines."""

from __future__ import annotations

from typing import NamedTuple

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from webapp.accounts import selectors, services
from webapp.accounts.access import requires, signed_in, superuser
from webapp.accounts.forms import MAX_GUIDELINES, GuidelinesForm, ProjectForm, SettingsForm
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.edits import DiffLine, EditConflict, compare_lines
from webapp.links import address_of
from webapp.params import read_int, read_text


class Clash(NamedTuple):
    """A field that somebody else has changed since the page was opened, with both texts."""

    label: str
    lines: list[DiffLine]


@signed_in
@require_GET
def project_list(request: Request) -> HttpResponse:
    context = {
        "projects": selectors.projects_of(request.user).select_related("created_by"),
        "archived": selectors.archived_projects_of(request.user),
        "demo_url": address_of("demo_start"),
        "small_model_url": address_of("small_model"),
    }
    return render(request, "accounts/project_list.html", context)


@superuser
@require_http_methods(["GET", "HEAD", "POST"])
def project_new(request: Request) -> HttpResponse:
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        project = services.create_project(user=request.user, **form.cleaned_data)
        messages.success(request, f"Created {project.name}. Describe a good reply in its guidelines.")
        return redirect("project_detail", project.slug)
    return render(request, "accounts/project_new.html", {"form": form})


@requires("project.view")
@require_GET
def project_detail(request: Request, project: Project) -> HttpResponse:
    context = {
        "project": project,
        "guidelines": selectors.current_guidelines(project),
        "memberships": selectors.memberships(project),
        "tab": "overview",
        "report_url": address_of("report", project.slug),
    }
    return render(request, "accounts/project_detail.html", context)


@requires("project.manage")
@require_http_methods(["GET", "HEAD", "POST"])
def project_settings(request: Request, project: Project) -> HttpResponse:
    form = SettingsForm(request.POST or None, instance=Project.objects.get(pk=project.pk))
    clashes: list[Clash] = []
    if request.method == "POST" and form.is_valid():
        try:
            services.change_settings(project=project, changes=form.changes(), began_from=form.began_from())
        except EditConflict as error:
            clashes = [Clash(str(form[name].label), compare_lines(str(saved), str(form.cleaned_data[name])))
                       for name, saved in error.saved.items()]  # fmt: skip
            form = form.renewed()
        else:
            messages.success(request, "Saved.")
            return redirect("project_settings", project.slug)
    context = {"project": project, "form": form, "clashes": clashes, "tab": "settings"}
    return render(request, "accounts/project_settings.html", context, status=409 if clashes else 200)


@requires("project.own")
@require_POST
def project_archive(request: Request, project: Project) -> HttpResponse:
    services.archive_project(project=project)
    request.session.pop("project", None)
    messages.success(request, f"{project.name} is archived. Nothing is deleted; bring it back from this list.")
    return redirect("project_list")


@requires("project.own")
@require_POST
def project_restore(request: Request, project: Project) -> HttpResponse:
    services.restore_project(project=project)
    messages.success(request, f"{project.name} is back.")
    return redirect("project_detail", project.slug)


@requires("project.view")
@require_GET
def guidelines(request: Request, project: Project) -> HttpResponse:
    guidelines_shown = selectors.guidelines_version(project=project, version=read_int(request.GET, "version"))
    versions = list(project.guidelines.select_related("created_by"))
    context = {"project": project, "shown": guidelines_shown, "versions": versions, "tab": "guidelines"}
    return render(request, "accounts/guidelines.html", context)


@requires("project.manage")
@require_http_methods(["GET", "HEAD", "POST"])
def guidelines_edit(request: Request, project: Project) -> HttpResponse:
    newest = selectors.current_guidelines(project)
    form = GuidelinesForm(request.POST or None, initial={"text": newest.text if newest else ""})
    clashes: list[Clash] = []
    if request.method == "POST" and form.is_valid():
        text, began_from = form.cleaned_data["text"], form.cleaned_data["began_from"]
        try:
            saved = services.set_guidelines(project=project, text=text, user=request.user, began_from=began_from)
        except EditConflict as error:
            newest = selectors.current_guidelines(project)
            clashes = [Clash("Guidelines", compare_lines(error.saved["guidelines"], text))]
        else:
            messages.success(request, f"Version {saved.version} is what annotators see from now on.")
            return redirect("guidelines", project.slug)
    context = {"project": project, "form": form, "newest": newest, "clashes": clashes, "tab": "guidelines"}
    return render(request, "accounts/guidelines_edit.html", context, status=409 if clashes else 200)


@requires("project.manage")
@require_POST
def guidelines_preview(request: Request, project: Project) -> HttpResponse:
    context = {"project": project, "text": read_text(request.POST, "text", longest=MAX_GUIDELINES)}
    return render(request, "accounts/guidelines_preview.html", context)
