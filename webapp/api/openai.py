"""The OpenAI-compatible face: an OpenAI client talks to what a project has deployed.

`model` is a project's short name (the deployed model, canary share included) or a model's served name, e.g. `kite-7`.
The key is an API token. Requests go to the model server as they are, but for the model's name and the project's system
prompt.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from rest_framework.exceptions import AuthenticationFailed

from webapp.accounts.access import allow, declare, may
from webapp.accounts.models import Project, User
from webapp.accounts.selectors import projects_of
from webapp.accounts.tokens import ApiTokenAuthentication
from webapp.chat.gateway import complete_chat, stream_chat
from webapp.errors import BadInput, NotFound, TutelageError
from webapp.registry.models import Deployment, ModelVersion
from webapp.registry.selectors import choose_model
from webapp.registry.services import ensure_served


@dataclass(frozen=True)
class Target:
    """Where a request goes: the name the model server knows, and the system prompt of the project."""

    served: str
    system: str


def failure(message: str, status: int, code: str) -> JsonResponse:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JsonResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status=status)


def person_of(request: HttpRequest) -> User | None:
    """Whose token the request carries."""
    try:
        found = ApiTokenAuthentication().authenticate(request)
    except AuthenticationFailed:
        return None
    return found[0] if found else None


def target(person: User, name: str) -> Target:
    """The model of this name that the person may talk to."""
    project = Project.objects.filter(slug=name, archived_at=None).first()
    if project is not None:
        allow(person, "chat", project)
        model = choose_model(project, uuid.uuid4().hex)
        if model is None:
            raise NotFound(f"Nothing is deployed in {name} yet. A manager deploys a model on its models page.")
        return Target(ensure_served(model), project.system_prompt)
    slug, _, number = name.rpartition("-")
    found = ModelVersion.objects.filter(project__slug=slug, number=int(number) if number.isdecimal() else -1)
    model = found.select_related("project").first()
    if model is None or not may(person, "chat", model.project):
        known = ", ".join(projects_of(person).values_list("slug", flat=True)) or "none yet"
        raise NotFound(
            f"There is no model {name!r}. Models: {known}; or one of a project, such as {known.split(', ')[0]}-1."
        )
    allow(person, "models.view", model.project)
    return Target(ensure_served(model), model.project.system_prompt)


def body_of(request: HttpRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError as error:
        raise BadInput("The body is not valid JSON.") from error
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise BadInput("The body must be a JSON object with a model.")
    return body


def with_system(body: dict[str, Any], system: str) -> dict[str, Any]:
    """The body with the project's system prompt in front, where the caller gave none."""
    messages = body.get("messages")
    if (
        not system
        or not isinstance(messages, list)
        or any(isinstance(m, dict) and m.get("role") == "system" for m in messages)
    ):
        return body
    return {**body, "messages": [{"role": "system", "content": system}, *messages]}


@csrf_exempt
@require_POST
async def completions(request: HttpRequest) -> HttpResponseBase:
    """POST /v1/chat/completions, streamed or not."""
    person = await sync_to_async(person_of)(request)
    if person is None:
        return failure("Give an API token as the key: make one on your profile page.", 401, "invalid_api_key")
    try:
        body = body_of(request)
        goal = await sync_to_async(target)(person, body["model"])
        return await forward({**with_system(body, goal.system), "model": goal.served})
    except TutelageError as error:
        return failure(error.message, error.status, error.error_code)


async def forward(body: dict[str, Any]) -> HttpResponseBase:
    """The model server's answer. What goes wrong before the first chunk is an error, not a broken stream."""
    if not body.get("stream"):
        return JsonResponse(await complete_chat(body))
    chunks = stream_chat(body)
    first = await anext(chunks)
    return StreamingHttpResponse(
        events(first, chunks), content_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


async def events(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    yield event(first)
    try:
        async for chunk in rest:
            yield event(chunk)
    except TutelageError as error:
        yield event({"error": {"message": error.message, "type": "server_error", "code": error.error_code}})
        return
    yield b"data: [DONE]\n\n"


def event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@require_GET
def models(request: HttpRequest) -> HttpResponseBase:
    """GET /v1/models: the projects in which something answers."""
    person = person_of(request)
    if person is None:
        return failure("Give an API token as the key: make one on your profile page.", 401, "invalid_api_key")
    live = Deployment.objects.filter(state=Deployment.State.LIVE, project__in=projects_of(person)).select_related(
        "project"
    )
    data = [
        {"id": row.project.slug, "object": "model", "created": int(row.since.timestamp()), "owned_by": row.project.name}
        for row in live
    ]
    return JsonResponse({"object": "list", "data": data})


declare(completions, "token")
declare(models, "token")
