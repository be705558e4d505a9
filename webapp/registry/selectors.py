"""Reads of models and deployments."""

from __future__ import annotations

import hashlib
from typing import Final

from django.db.models import Q, QuerySet

from webapp.accounts.models import Project
from webapp.registry.models import Deployment, ModelVersion

CANARY_SHARE: Final = 0.1
SEARCHED: Final = ("license", "languages", "tags", "base_model", "dtype", "architecture")
MAX_WORDS: Final = 10


def models_of(project: Project, *, kind: str = "", search: str = "") -> QuerySet[ModelVersion]:
    """The project's models that are not archived, newest first. search: words that each stand in its name, its note, or
    what its files say of it (license, languages, tags, base, precision, architecture)."""
    models = ModelVersion.objects.filter(project=project, archived_at=None).select_related("parent", "project")
    for word in search.split()[:MAX_WORDS]:
        match = Q(name__icontains=word) | Q(note__icontains=word)
        for fact in SEARCHED:
            match |= Q(**{f"facts__{fact}__icontains": word})
        models = models.filter(match)
    return models.filter(kind=kind) if kind else models


def open_deployments(project: Project | None = None) -> QuerySet[Deployment]:
    deployments = Deployment.objects.filter(state__in=Deployment.OPEN).select_related("model__project", "project", "by")
    return deployments.filter(project=project) if project else deployments


def live_deployment(project: Project) -> Deployment | None:
    return open_deployments(project).filter(state=Deployment.State.LIVE).first()


def canary_deployment(project: Project) -> Deployment | None:
    return open_deployments(project).filter(state=Deployment.State.CANARY).first()


def deployments_of(project: Project) -> QuerySet[Deployment]:
    return Deployment.objects.filter(project=project).select_related("model__project", "by", "ended_by")


def previous_deployment(deployment: Deployment) -> Deployment | None:
    """What was live before this one and can be again, so that rolling back twice goes back twice."""
    earlier_id = deployment.replaced_id
    while earlier_id is not None:
        earlier = Deployment.objects.select_related("model__project").get(pk=earlier_id)
        if earlier.model_id != deployment.model_id and earlier.model.archived_at is None:
            return earlier
        earlier_id = earlier.replaced_id
    return None


def default_share(project: Project) -> float:
    """The share of new conversations that a deployment gets unless its maker says otherwise: all where nothing is live,
    a tenth beside a live model."""
    return CANARY_SHARE if live_deployment(project) else 1.0


def last_live_deployment(project: Project) -> Deployment | None:
    """What was live last where nothing is now. Only what was live is ever retired; canaries that go are rolled back."""
    retired = Deployment.objects.filter(project=project, state=Deployment.State.RETIRED)
    return retired.order_by("-until", "-id").first()


def choose_model(project: Project, key: str) -> ModelVersion | None:
    """The model that answers the conversation `key`: the canary for its share of keys, else the live one.

    The same key gets the same model as long as the deployments stay as they are; None if nothing is deployed.
    """
    by_state = {deployment.state: deployment for deployment in open_deployments(project)}
    live, canary = by_state.get(Deployment.State.LIVE), by_state.get(Deployment.State.CANARY)
    if canary and (live is None or position(project, key) < canary.share):
        return canary.model
    return live.model if live else None


def position(project: Project, key: str) -> float:
    """Where in [0, 1) a key falls."""
    digest = hashlib.sha256(f"{project.pk}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
