"""Every address, asked for as every role and as nobody: each answers as the permission that its view declares says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from annotations.models import Lease
from tests import factories
from webapp.accounts.access import ROLES
from webapp.accounts.models import Project, Role, User
from webapp.data.models import Import

# What other people's packages serve, and who may see it. They bring their own checks; their views declare nothing.
THIRD_PARTY = ("accounts/", "static/")
WORDS = frozenset({"public", "signed_in", "superuser", "token", *ROLES})
PEOPLE = ("ada", "mo", "ann", "tess", "stranger", "root", "nobody")
ROLE = {"ada": Role.OWNER, "mo": Role.MANAGER, "ann": Role.ANNOTATOR, "tess": Role.TESTER, "root": Role.OWNER}
FINE = frozenset({200, 201, 202, 204, 302, 400, 404, 405, 409, 410, 415, 422, 429, 503})
# They would change who may do what for the addresses after them; tests of their own have them.
LEFT_OUT = {"project_archive", "member_leave", "member_remove", "chat_delete", "chat_delete_all"}


def addresses(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, route)
        else:
            yield route, pattern


def ours() -> list[tuple[str, URLPattern]]:
    return [(route, p) for route, p in addresses(get_resolver().url_patterns) if not route.startswith(THIRD_PARTY)]


def declared(pattern: URLPattern) -> str:
    view = getattr(pattern.callback, "view_class", None) or getattr(pattern.callback, "cls", None) or pattern.callback
    return getattr(pattern.callback, "permission", None) or getattr(view, "permission", "")


@pytest.mark.parametrize(("route", "pattern"), ours(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_view_names_the_permission_it_needs(route, pattern):
    assert declared(pattern) in WORDS, f"/{route} is served by {pattern.callback!r}, which declares no permission"


@pytest.fixture
def rows(project: Project, ann: User, ben: User, tess: User) -> dict[str, tuple[Any, str]]:
    """What stands behind each parameter: its value, and whose own it is ("": the project's).

    A key is the parameter with what comes before it in the address, or the parameter alone.
    """
    talk = factories.conversation(tess, project)
    reply = factories.message(talk, role="assistant", parent=factories.message(talk))
    task = factories.task(project)
    lease = Lease.objects.create(task=task, person=ann, until=timezone.now() + timedelta(hours=1))
    corpus = factories.corpus(project)
    model = factories.model_version(project)
    load = Import.objects.create(project=project, by=project.created_by, name="prompts.jsonl")
    label = factories.ranking(project, ann)
    return {
        "slug": (project.slug, ""),
        "stage": ("sft", ""),
        "secret": ("unknown", "everybody"),
        "digest": ("unknown", "nobody"),
        "user_id": (ben.pk, ""),
        "invitation_id": (999_999, ""),
        "conversation_id": (talk.pk, "tess"),
        "message_id": (reply.pk, "tess"),
        "lease_id": (lease.pk, "ann"),
        "leases/pk": (lease.pk, "ann"),
        "kind": ("rank", ""),
        "label/kind": ("ranking", ""),
        "export/kind": ("rankings", ""),
        "data/kind": ("ranking", ""),
        "kind/pk": (label.pk, ""),
        "label_id": (label.pk, "ann"),
        "prompts/pk": (label.prompt.pk, ""),
        "corpora/pk": (corpus.pk, ""),
        "imports/pk": (load.pk, ""),
        "snapshots/pk": (factories.snapshot(project).pk, ""),
        "runs/pk": (factories.run(project).pk, ""),
        "models/pk": (model.pk, ""),
        "deployments/pk": (factories.deployment(project, model).pk, ""),
    }


PARAMETER = re.compile(r"([\w-]*)/?<(?:\w+:)?(\w+)>")


def filled(route: str, rows: dict[str, tuple[Any, str]]) -> tuple[str, set[str]]:
    """The address with a value for each parameter, and whose own the rows are."""
    owners: set[str] = set()
    parts = []
    before = ""
    for part in route.split("/"):
        name = match[2] if (match := PARAMETER.search(part)) else ""
        if name:
            value, whose = rows.get(f"{before}/{name}") or rows[name]
            owners.add(whose)
            part = PARAMETER.sub(str(value), part)  # noqa: PLW2901
        parts.append(part)
        before = name or part
    return "/" + "/".join(parts), owners


def asked(client: Client, address: str) -> int:
    """The status of a GET; a POST where only that is answered."""
    response = client.get(address)
    if response.status_code == 405:
        response = client.post(address)
    return response.status_code


def fitting(permission: str, person: str, owners: set[str]) -> frozenset[int] | set[int]:
    """Which statuses fit. What an allowed person gets depends on the row and the form, but is never a refusal."""
    if permission == "public":
        return FINE
    if permission == "token":
        return {401}  # a session opens nothing there
    if person == "nobody":
        return {302, 401, 403}
    if permission == "signed_in":
        return FINE
    if permission == "superuser":
        return FINE if person == "root" else {403}
    role = ROLE.get(person)
    if role is None:
        return {404} if owners else FINE
    if role not in ROLES[permission]:
        return {403, 404} if owners - {""} else {403}
    return FINE if person in owners or not owners - {""} else {403, 404}


@pytest.mark.parametrize("person", PEOPLE)
def test_every_address_answers_each_role_as_declared(person, rows, request):
    client = Client(raise_request_exception=False)
    if person != "nobody":
        client.force_login(request.getfixturevalue(person))
    wrong = []
    for route, pattern in ours():
        if pattern.name in LEFT_OUT:
            continue
        address, owners = filled(route, rows)
        status = asked(client, address)
        if status not in fitting(declared(pattern), person, owners):
            wrong.append(f"{person} gets {status} at {address} ({pattern.name}: {declared(pattern)})")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "address",
    [
        "/accounts/email/",
        "/accounts/password/change/",
        "/accounts/2fa/",
        "/accounts/logout/",
        "/accounts/reauthenticate/",
    ],
)
def test_the_pages_of_an_account_want_a_sign_in(client, address, root):
    assert client.get(address).status_code == 302


@pytest.mark.parametrize("address", ["/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"])
def test_the_ways_in_are_open(client, address, root):
    assert client.get(address).status_code == 200
