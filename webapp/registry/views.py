"""Pages of models and deployments."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from webapp.accounts.access import allow, declares, requires
from webapp.accounts.models import Project, User
from webapp.errors import BadInput, NotFound
from webapp.params import read_choice
from webapp.registry import selectors, services
from webapp.registry.forms import DeployForm, WhyForm
from webapp.registry.models import Deployment, ModelVersion

PAGE = 25
GONE = "There is no such page, or it belongs to a project you are not a member of."


def signed_in_user(request: HttpRequest) -> User:
    """Who is signed in; the decorators let nobody else through."""
    if not isinstance(request.user, User):
        raise TypeError("a view without a permission")
    return request.user


def model_or_refuse(request: HttpRequest, pk: int, permission: str) -> ModelVersion:
    model = ModelVersion.objects.select_related("project", "parent", "created_by").filter(pk=pk).first()
    if model is None:
        raise NotFound(GONE)
    allow(request.user, permission, model.project)
    request.session["project"] = model.project.slug
    return model


def deployment_for(request: HttpRequest, pk: int, permission: str) -> Deployment:
    deployment = Deployment.objects.select_related("project", "model__project").filter(pk=pk).first()
    if deployment is None:
        raise NotFound(GONE)
    allow(request.user, permission, deployment.project)
    return deployment


@require_safe
@requires("models.view")
def model_list(request: HttpRequest, project: Project) -> HttpResponse:
    kind = read_choice(request.GET, "kind", ModelVersion.Kind.values)
    models = selectors.models_of(project, kind=kind).select_related("created_by")
    context = {
        "project": project,
        "page": Paginator(models, PAGE).get_page(request.GET.get("page")),
        "kind": kind,
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
@declares("models.deploy")
def model_deploy(request: HttpRequest, pk: int) -> HttpResponse:
    model = model_or_refuse(request, pk, "models.deploy")
    form = DeployForm(request.POST)
    if not form.is_valid():
        raise BadInput("; ".join(f"{field}: {errors[0]}" for field, errors in form.errors.items()))
    values = form.cleaned_data
    deployment = services.deploy(
        project=model.project, model=model, by=signed_in_user(request), share=values["share"] / 100, why=values["why"]
    )
    if deployment.state == Deployment.State.LIVE:
        messages.success(request, f"{model.name} is live: it answers every new conversation.")
    else:
        messages.success(request, f"{model.name} answers {values['share']} % of new conversations.")
    return redirect("model_detail", pk)


@require_POST
@declares("models.deploy")
def model_archive(request: HttpRequest, pk: int) -> HttpResponse:
    model = model_or_refuse(request, pk, "models.deploy")
    services.archive_model(model=model, by=signed_in_user(request))
    messages.success(request, f"{model.name} is out of the lists. Its page and its files stay.")
    return redirect("model_list", model.project.slug)


@require_POST
@declares("models.deploy")
def deployment_roll_back(request: HttpRequest, pk: int) -> HttpResponse:
    deployment = deployment_for(request, pk, "models.deploy")
    returned = services.roll_back(deployment=deployment, by=signed_in_user(request), why=why(request))
    if returned:
        messages.success(request, f"{returned.model.name} is live again.")
    else:
        messages.success(request, f"The canary {deployment.model.name} is gone; the live model answers everyone.")
    return redirect("deployment_list", deployment.project.slug)


@require_POST
@declares("models.deploy")
def deployment_retire(request: HttpRequest, pk: int) -> HttpResponse:
    deployment = deployment_for(request, pk, "models.deploy")
    services.retire(deployment=deployment, by=signed_in_user(request), why=why(request))
    messages.success(request, f"{deployment.model.name} answers no new conversations any more.")
    return redirect("deployment_list", deployment.project.slug)


def why(request: HttpRequest) -> str:
    form = WhyForm(request.POST)
    return form.cleaned_data["why"] if form.is_valid() else ""
