"""The first page: what to do next, and the loop with its counts."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from webapp.accounts.access import last_project, may, public, requires
from webapp.accounts.models import Project, User
from webapp.accounts.requests import Request
from webapp.accounts.selectors import has_superuser, projects_of
from webapp.home.selectors import own_figures, project_counts, stations
from webapp.home.steps import next_steps
from webapp.links import address_of


@public
@require_GET
def home(request: Request) -> HttpResponse:
    user = request.user
    if not isinstance(user, User):
        return render(request, "home/welcome.html", {"new_installation": not has_superuser()})
    project = last_project(request, projects_of(user))
    if project is None:
        ways_in = {"demo_url": address_of("demo_start"), "small_model_url": address_of("small_model")}
        return render(request, "home/empty.html", ways_in)
    figures, personal = project_counts(project), own_figures(user, project)
    context = {
        "project": project,
        "steps": next_steps(user=user, project=project, figures=figures, labels=personal["open"]),
        "own": personal,
        **loop(request, project, figures),
    }
    return render(request, "home/home.html", context)


@requires("project.view")
@require_GET
def project_loop(request: Request, project: Project) -> HttpResponse:
    """The picture alone, which renews itself."""
    return render(request, "home/loop.html", loop(request, project, project_counts(project)))


def loop(request: Request, project: Project, figures: dict[str, int]) -> dict[str, object]:
    manages = may(request.user, "data.view", project)
    return {"project": project, "stations": stations(project, figures, manages=manages)}
