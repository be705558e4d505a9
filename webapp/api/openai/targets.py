"""Who asks, which model answers, and within which limits: all that a request needs of the database, in one go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest
from rest_framework.exceptions import AuthenticationFailed

from training.contract import ChatRequest, GenerationRequest, RequestRefused
from webapp.accounts.access import may
from webapp.accounts.authentication import ApiTokenAuthentication, check_scope
from webapp.accounts.models import Project, User
from webapp.accounts.selectors import projects_of
from webapp.errors import NotFound
from webapp.model_server.completions import person_key
from webapp.registry.models import Deployment, ModelVersion
from webapp.registry.selectors import choose_model, live_deployment

NUMBERED: Final = re.compile(r"(?P<slug>[A-Za-z0-9_-]{1,60})-(?P<number>[1-9][0-9]{0,8})")
MAX_NAMED: Final = 20
ANSWERS: Final = (ModelVersion.Kind.FULL, ModelVersion.Kind.ADAPTER)


@dataclass(frozen=True)
class AnsweringModel:
    """The model that answers a person, and the project whose settings hold."""

    person: User
    project: Project
    model: ModelVersion


def token_user(request: HttpRequest) -> User:
    """Whose token the request carries. Raises RequestRefused (401), or NotAllowed for one that is not for chatting."""
    try:
        credentials = ApiTokenAuthentication().authenticate(request)
    except AuthenticationFailed:
        credentials = None
    if credentials is None:
        message = "Give an API token as the key: make one on your profile page."
        raise RequestRefused(message, status=401, code="invalid_api_key")
    person: User
    person, token = credentials
    check_scope(token, "chat")
    return person


def find_target(person: User, name: str, key: str = "") -> AnsweringModel:
    """The model of this name that the person may talk to. `key` decides between the live model and a canary.

    Raises NotFound, in the same words for what does not exist and for what belongs to others.
    """
    project = None if "\0" in name else Project.objects.filter(slug=name, archived_at=None).first()
    if project is not None and may(person, "chat", project):
        model = choose_model(project, key)
        if model is None:
            raise NotFound(f"Nothing is deployed in {name} yet. A manager deploys a model on its models page.")
        return AnsweringModel(person, project, model)
    if match := NUMBERED.fullmatch(name):
        models = ModelVersion.objects.select_related("project").filter(
            project__slug=match["slug"], number=int(match["number"]), kind__in=ANSWERS, archived_at=None
        )
        model = models.first()
        if model is not None and may(person, "models.view", model.project):
            return AnsweringModel(person, model.project, model)
    usable = [row.project.slug for row in deployed(person)[:MAX_NAMED]]
    named = f"You may use {', '.join(usable)}." if usable else "Nothing that you may use is deployed yet."
    raise NotFound(f"There is no model of this name that you may use. {named}")


def deployed(person: User) -> Any:
    """The live deployments of the person's projects."""
    live = Deployment.objects.filter(state=Deployment.State.LIVE, project__in=projects_of(person))
    return live.select_related("project").order_by("project__name", "id")


def model_entry(person: User, name: str) -> dict[str, Any]:
    """One entry of the list of models. Raises NotFound."""
    target = find_target(person, name)
    live = live_deployment(target.project) if target.project.slug == name else None
    return entry(name, live.since if live else target.model.created_at, target.project.name)


def entry(name: str, created: Any, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created.timestamp()), "owned_by": owner}


def stays_with(person: User, request: GenerationRequest) -> str:
    """What all requests of one conversation have in common, so that one model answers all of them: who asks, for whom,
    and how it began."""
    return "\x1f".join((str(person.pk), request.user, request.opening()))


def upstream_body(request: GenerationRequest, target: AnsweringModel) -> dict[str, Any]:
    """The request for the model server: the project's settings are the defaults, its longest reply is the cap."""
    project, cap = target.project, target.project.max_new_tokens
    ours = {"model", "messages", "user", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
    body = request.model_dump(exclude_unset=True, exclude=ours)
    if isinstance(request, ChatRequest):
        turns = [turn.model_dump() for turn in request.turns()]
        if project.system_prompt and not any(turn["role"] == "system" for turn in turns):
            turns = [{"role": "system", "content": project.system_prompt}, *turns]
        body["messages"] = turns
    return {
        "temperature": project.temperature,
        "top_p": project.top_p,
        **body,
        "model": target.model.served_name,
        "max_tokens": min(request.limit or cap, cap),
        "user": person_key(target.person.pk),
    }
