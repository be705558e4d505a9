"""The sample project's page: how far it is, then the report."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from webapp.accounts.access import remember_project, requires, superuser
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.demo.models import Demo
from webapp.demo.people import new_logins
from webapp.demo.selectors import current_step, demo_progress, stages
from webapp.demo.services import resume_demo, start_demo
from webapp.demo.small_model import HUB_NAME, start_small_model
from webapp.errors import NotFound
from webapp.partials import render_page_or_fragment
from webapp.runs.machines import small_model_folder


@superuser
@require_POST
def demo_start(request: Request) -> HttpResponse:
    demo = start_demo(by=request.user)
    remember_project(request, demo.project)
    return redirect("demo_report", demo.project.slug)


@superuser
@require_http_methods(["GET", "HEAD", "POST"])
def small_model(request: Request) -> HttpResponse:
    """What trying a small real model takes; the button starts it."""
    if request.method == "POST":
        run = start_small_model(by=request.user)
        remember_project(request, run.project)
        return redirect("run_detail", run.pk)
    return render(request, "demo/small_model.html", {"folder": small_model_folder(), "hub_name": HUB_NAME})


def demo_of(project: Project) -> Demo:
    """The project's way round the loop, where it is a sample."""
    demo = Demo.objects.select_related("project").filter(project=project).first()
    if demo is None:
        raise NotFound("Only a sample project has a report. Other projects show their figures with their models.")
    return demo


@requires("runs.view")
@require_GET
def demo_report(request: Request, project: Project) -> HttpResponse:
    demo = demo_of(project)
    context = {"project": project, "demo": demo, **how_far(demo)}
    return render_page_or_fragment(request, "demo/report.html", "demo/progress.html", context)


def how_far(demo: Demo) -> dict[str, object]:
    return {"stages": stages(demo), "progress": round(100 * demo_progress(demo), 1), "current": current_step(demo)}


@requires("runs.manage")
@require_POST
def demo_again(request: Request, project: Project) -> HttpResponse:
    resume_demo(demo=demo_of(project), by=request.user)
    return redirect("demo_report", project.slug)


@superuser
@require_POST
def demo_logins(request: Request, slug: str) -> HttpResponse:
    """New passwords for the three sample people, shown this once."""
    for login in new_logins():
        messages.info(request, f"Sample {login.role}: {login.email}, password {login.password}")
    return redirect("demo_report", slug)
