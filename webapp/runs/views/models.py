"""A model's page: what it is, where it comes from, how good it is, where it is deployed."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webapp.accounts.access import requires
from webapp.accounts.requests import Request
from webapp.registry.facts import advised_sampling, facts_of, sampling_words
from webapp.registry.forms import DeployForm
from webapp.registry.models import Deployment, ModelVersion
from webapp.registry.selectors import default_share, live_deployment, previous_deployment
from webapp.registry.views import MODELS
from webapp.runs.drawing import draw_lineage
from webapp.runs.lineage import lineage
from webapp.runs.models import Run
from webapp.runs.selectors import samples_of


@require_safe
@requires("models.view", MODELS)
def model_detail(request: Request, model: ModelVersion) -> HttpResponse:
    run = Run.objects.filter(output=model).first()
    live = live_deployment(model.project)
    facts = facts_of(model)
    current = model.deployments.filter(state__in=Deployment.OPEN).first()
    context = {
        "project": model.project,
        "model": model,
        "run": run,
        "picture": draw_lineage(lineage(model)),
        "figures": model.evaluations.select_related("run").order_by("name", "-id"),
        "samples": samples_of(run, 6) if run else [],
        "deployments": model.deployments.select_related("by", "ended_by"),
        "current": current,
        "live": live,
        "previous": previous_deployment(current) if current else None,
        "form": DeployForm(
            initial={"share": round(100 * default_share(model.project)), "sampling": live is None}, label_suffix=""
        ),
        "facts": facts,
        "authors_sampling": sampling_words(facts.sampling) if facts else "",
        "advised": sampling_words(advised_sampling(model)) if model.deployable else "",
        "used_by": Run.objects.filter(base=model).order_by("-id")[:10],
    }
    return render(request, "registry/model.html", context)
