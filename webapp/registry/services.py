"""Writes of models and deployments."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from webapp.accounts.models import Project, User
from webapp.accounts.services import change_settings
from webapp.errors import BadInput, Conflict, TutelageError, Unavailable
from webapp.model_server.serving import ModelServer
from webapp.registry.artefacts import folder_digest, hashes_of, local_folder, publish_folder
from webapp.registry.facts import advised_sampling
from webapp.registry.models import Deployment, ModelVersion
from webapp.registry.selectors import last_live_deployment, open_deployments, previous_deployment

log = logging.getLogger(__name__)
State = Deployment.State


class ModelDetails(TypedDict, total=False):
    """What is known of a model beyond its files."""

    parent: ModelVersion | None
    parameters: int | None
    context: int | None
    facts: dict[str, Any]
    metrics: dict[str, Any]
    note: str


def register_model(
    *,
    project: Project,
    name: str,
    kind: str,
    stage: str,
    by: User,
    folder: Path,
    files: dict[str, str] | None = None,
    **details: Unpack[ModelDetails],
) -> ModelVersion:
    """Copy a local folder into the model storage and give it the project's next number.

    The copy is checked against `files` (sha256 by path); without them they are computed here.
    """
    files = files if files is not None else hashes_of(folder)
    if not files:
        raise BadInput(f"{folder} has no files, so there is no model in it.")
    artefact = publish_folder(folder, folder_name="models", files=files)
    return add_model_version(
        project=project, name=name, kind=kind, stage=stage, by=by, artefact=artefact, files=files, **details
    )


@transaction.atomic
def add_model_version(
    *,
    project: Project,
    name: str,
    kind: str,
    stage: str,
    by: User,
    artefact: str,
    files: dict[str, str],
    **details: Unpack[ModelDetails],
) -> ModelVersion:
    """Give a folder of the artefact store the project's next number. `artefact` is what `publish` returned."""
    Project.objects.select_for_update().get(pk=project.pk)
    highest = ModelVersion.objects.filter(project=project).aggregate(last=Max("number"))["last"] or 0
    model = ModelVersion(
        project=project,
        number=highest + 1,
        name=name or f"{stage} {highest + 1}",
        kind=kind,
        stage=stage,
        artefact=artefact,
        sha256=folder_digest(files),
        files=files,
        created_by=by,
        **details,
    )
    model.full_clean()
    model.save()
    return model


def ensure_served(model: ModelVersion, server: ModelServer | None = None) -> str:
    """Load the model on the model server where it is not there yet; its name there.

    Raises Unavailable (the server) or Conflict (the model cannot be served, or its folder is damaged).
    """
    server = server or ModelServer()
    require_deployable(model)
    if model.served_name not in server.served():
        server.load(model.served_name, local_folder(model))
    return model.served_name


def require_deployable(model: ModelVersion) -> None:
    if not model.deployable:
        kind = "archived" if model.archived_at else f"a {model.get_kind_display().lower()}"
        raise Conflict(f"{model.name} is {kind}, which cannot answer chats. Choose a language model or an adapter.")


def deploy(
    *,
    project: Project,
    model: ModelVersion,
    by: User,
    share: float = 1.0,
    why: str = "",
    sampling: bool = False,
    server: ModelServer | None = None,
) -> Deployment:
    """Let the model answer `share` of the project's new conversations. sampling: the project's chats are sampled as the
    model's authors advise from now on.

    It is loaded and has answered once before any traffic changes. A share below 1 beside a live model makes a canary;
    a whole share makes it live and retires the one before.
    """
    if model.project_id != project.pk:
        raise BadInput(f"{model.name} belongs to another project.")
    if not 0 < share <= 1:
        raise BadInput("The share must be more than 0 and at most 1.")
    server = server or ModelServer()
    server.smoke_test(ensure_served(model, server))
    served = server.served()
    advised = advised_sampling(model) if sampling else {}
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        deployment = switch(project=project, model=model, by=by, share=share, why=why)
        if advised:
            change_settings(project=project, changes=advised)
        note_folding(deployment, served)
    return deployment


def switch(*, project: Project, model: ModelVersion, by: User, share: float, why: str) -> Deployment:
    """The rows' part of deploying; the caller holds the project's lock."""
    now = timezone.now()
    current = {deployment.state: deployment for deployment in open_deployments(project)}
    live, canary = current.get(State.LIVE), current.get(State.CANARY)
    if live and live.model_id == model.pk:
        raise Conflict(f"{model.name} is live already.")
    promoted = canary is not None and canary.model_id == model.pk and (share == 1 or live is None)
    if canary and canary.model_id == model.pk and not promoted:
        return change_share(canary, share, by=by, why=why)
    before = live or last_live_deployment(project)
    if canary and not promoted and share < 1:
        end_deployment(canary, State.ROLLED_BACK, by=by, why=f"Replaced by {model.name}.")
    if live and (share == 1 or promoted):
        end_deployment(live, State.RETIRED, by=by, why=f"Replaced by {model.name}.")
    if canary and promoted:
        canary.state, canary.share, canary.replaced = State.LIVE, 1.0, before
        canary.why = f"{canary.why}\nMade live by {by}: {why}".removesuffix(": ").strip()
        canary.save(update_fields=["state", "share", "why", "replaced"])
        return canary
    state, share = (State.CANARY, share) if share < 1 and live else (State.LIVE, 1.0)
    deployment = Deployment(project=project, model=model, state=state, share=share, since=now, by=by, why=why)
    if state == State.LIVE:
        deployment.replaced = before
    deployment.full_clean(validate_constraints=False)
    deployment.save()
    return deployment


def change_share(canary: Deployment, share: float, *, by: User, why: str) -> Deployment:
    """The canary goes on with another share of new conversations; its history says who changed it and why."""
    if canary.share != share:
        changed = f"Share changed from {canary.share:.0%} to {share:.0%} by {by}: {why}".removesuffix(": ")
        canary.share, canary.why = share, f"{canary.why}\n{changed}".strip()
        canary.save(update_fields=["share", "why"])
    return canary


def end_deployment(deployment: Deployment, state: str, *, by: User, why: str) -> None:
    deployment.state, deployment.until, deployment.ended_by, deployment.ended_why = state, timezone.now(), by, why
    deployment.problem = ""
    deployment.save(update_fields=["state", "until", "ended_by", "ended_why", "problem"])


def roll_back(
    *, deployment: Deployment, by: User, why: str = "", server: ModelServer | None = None
) -> Deployment | None:
    """Take a deployment back. A canary's share returns to the live model (None); for a live one, the model that was
    live before returns, and its new deployment is returned.

    The way back does not wait for a model server that is down: the reconciler loads the model when it answers again.
    """
    previous = previous_deployment(deployment) if deployment.state == State.LIVE else None
    problem = ""
    if previous:
        try:
            ensure_served(previous.model, server)
        except Unavailable as error:
            problem = error.message
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=deployment.project_id)
        deployment = Deployment.objects.select_for_update().get(pk=deployment.pk)
        require_open(deployment)
        if deployment.state == State.LIVE and previous is None:
            raise Conflict("No model was live before this one. Deploy another, or retire this one to stop the chat.")
        end_deployment(deployment, State.ROLLED_BACK, by=by, why=why)
        if previous is None:
            return None
        returned = f"Returned when {deployment.model.name} was rolled back."
        return Deployment.objects.create(
            project=deployment.project,
            model=previous.model,
            state=State.LIVE,
            by=by,
            why=returned,
            problem=problem,
            replaced=previous.replaced,
            folds_system=previous.folds_system,
        )


@transaction.atomic
def retire(*, deployment: Deployment, by: User, why: str = "") -> None:
    """Stop the live deployment without a replacement; a canary is rolled back."""
    deployment = Deployment.objects.select_for_update().get(pk=deployment.pk)
    require_open(deployment)
    end_deployment(deployment, State.RETIRED if deployment.state == State.LIVE else State.ROLLED_BACK, by=by, why=why)


def require_open(deployment: Deployment) -> None:
    if not deployment.is_open:
        label = deployment.get_state_display().lower()
        raise Conflict(f"This deployment has ended already ({label}). Reload the page to see what is live now.")


@transaction.atomic
def archive_model(*, model: ModelVersion, by: User) -> None:
    """Take a model out of the lists; its files, runs and lineage stay."""
    model = ModelVersion.objects.select_for_update().get(pk=model.pk)
    if open_deployments(model.project).filter(model=model).exists():
        raise Conflict(f"{model.name} is deployed. Deploy another model first, then archive this one.")
    model.archived_at = timezone.now()
    model.save(update_fields=["archived_at"])
    log.info("model %s archived by %s", model.pk, by.pk)


def reload_deployments(server: ModelServer | None = None) -> int:
    """Load every deployed model that the model server does not serve, as after its restart; how many were loaded.

    What stands in the way is kept on the deployment, so that its page says it, and the next round tries again.
    """
    deployments = list(open_deployments())
    if not deployments:
        return 0
    server = server or ModelServer()
    loaded = 0
    try:
        served, down = server.served(), ""
    except Unavailable as error:
        served, down = {}, error.message
    for deployment in deployments:
        problem = down
        if not down and deployment.model.served_name not in served:
            try:
                server.load(deployment.model.served_name, local_folder(deployment.model))
                loaded += 1
            except TutelageError as error:
                problem = error.message
        if problem != deployment.problem:
            log.warning("deployment %s: %s", deployment.pk, problem or "served again")
            Deployment.objects.filter(pk=deployment.pk).update(problem=problem)
    for deployment in deployments:
        note_folding(deployment, served)
    return loaded


def note_folding(deployment: Deployment, served: Mapping[str, bool]) -> None:
    """Keep whether the chat template of the model takes no system turn, where the model server serves it."""
    folds = not served.get(deployment.model.served_name, not deployment.folds_system)
    if folds != deployment.folds_system:
        deployment.folds_system = folds
        Deployment.objects.filter(pk=deployment.pk).update(folds_system=folds)
