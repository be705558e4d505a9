"""Pages of models and deployments."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from webapp.accounts.access import may, requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.errors import BadInput
from webapp.params import read_choice, read_text
from webapp.registry import selectors, services
from webapp.registry.forms import DeployForm, WhyForm
from webapp.registry.models import Deployment, ModelVersion

PAGE = 25
MODELS = ModelVersion.objects.select_related("project", "parent", "created_by")
DEPLOYMENTS = Deployment.objects.select_related("project", "model__project")


@require_safe
@requires("models.view")
def model_list(request: HttpRequest, project: Project) -> HttpResponse:
    kind = read_choice(request.GET, "kind", ModelVersion.Kind.values)
    search = read_text(request.GET, "q").strip()
    models = selectors.models_of(project, kind=kind, search=search).select_related("created_by")
    context = {
        "project": project,
        "page": Paginator(models, PAGE).get_page(request.GET.get("page")),
        "kind": kind,
        "search": search,
        "kinds": ModelVersion.Kind.choices,
        "live": selectors.live_deployment(project),
        "canary": selectors.canary_deployment(project),
    }
    return render(request, "registry/list.html", context)


@require_safe
@requires("models.view")
def deployment_list(request: HttpRequest, project: Project) -> HttpResponse:
    page = Paginator(selectors.deployments_of(project), PAGE).get_page(request.GET.get("page"))
    live = selectors.live_deployment(project)
    context = {"project": project, "page": page, "previous": selectors.previous_deployment(live) if live else None}
    return render(request, "registry/deployments.html", context)


@require_POST
@requires("models.deploy", MODELS)
def model_deploy(request: Request, model: ModelVersion) -> HttpResponse:
    form = DeployForm(request.POST)
    if not form.is_valid():
        raise BadInput("; ".join(f"{field}: {errors[0]}" for field, errors in form.errors.items()))
    values = form.cleaned_data
    deployment = services.deploy(
        project=model.project,
        model=model,
        by=request.user,
        share=values["share"] / 100,
        why=values["why"],
        sampling=values["sampling"] and may(request.user, "project.manage", model.project),
    )
    if deployment.state == Deployment.State.LIVE:
        messages.success(request, f"{model.name} is live: it answers every new conversation.")
    else:
        messages.success(request, f"{model.name} answers {values['share']} % of new conversations.")
    if values["sampling"]:
        messages.info(
            request, f"Chats are sampled at temperature {model.project.temperature:g}, top-p {model.project.top_p:g}."
        )
    if request.POST.get("next") == "chat":
        return redirect("chat")
    return redirect("model_detail", model.pk)


@require_POST
@requires("models.deploy", MODELS)
def model_archive(request: Request, model: ModelVersion) -> HttpResponse:
    services.archive_model(model=model, by=request.user)
    messages.success(request, f"{model.name} is archived. Its page and files are kept.")
    return redirect("model_list", model.project.slug)


@require_POST
@requires("models.deploy", DEPLOYMENTS)
def deployment_roll_back(request: Request, deployment: Deployment) -> HttpResponse:
    returned = services.roll_back(deployment=deployment, by=request.user, why=why(request))
    if returned:
        messages.success(request, f"{returned.model.name} is live again.")
    else:
        messages.success(request, f"The canary {deployment.model.name} is gone; the live model answers everyone.")
    return redirect("deployment_list", deployment.project.slug)


@require_POST
@requires("models.deploy", DEPLOYMENTS)
def deployment_retire(request: Request, deployment: Deployment) -> HttpResponse:
    services.retire(deployment=deployment, by=request.user, why=why(request))
    messages.success(request, f"{deployment.model.name} no longer answers new conversations.")
    return redirect("deployment_list", deployment.project.slug)


def why(request: HttpRequest) -> str:
    form = WhyForm(request.POST)
    return form.cleaned_data["why"] if form.is_valid() else ""
