"""Tokens by API: listed and ended; each opens what it is for, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.addresses import filled, ours
from tests.narrowing import existing
from webapp.accounts.access import SCOPES
from webapp.accounts.hub import hub_token
from webapp.accounts.models import ApiToken, User
from webapp.accounts.tokens import create_api_token, tokens_of
from webapp.api.views.tokens import HubTokenDetail, TokenDetail

ENDPOINTS = [(route, pattern.callback.cls) for route, pattern in ours() if hasattr(pattern.callback, "cls")]
# Ending a token, or changing that of the hub, has a rule of its own, tested above.
OWN_RULES = (TokenDetail, HubTokenDetail)
ENDPOINTS = [(route, view) for route, view in ENDPOINTS if hasattr(view, "needs") and view not in OWN_RULES]


def test_people_see_their_own_tokens(client_of: Any, ada: User, stranger: User) -> None:
    create_api_token(user=stranger, name="Theirs", scopes=["read"])
    create_api_token(user=ada, name="Other", scopes=["chat"])
    rows = client_of(ada, "read").get("/api/v1/tokens/").json()
    assert [(row["name"], row["scopes"], row["current"]) for row in rows] == [
        ("Test", ["read"], True),
        ("Other", ["chat"], False),
    ]
    assert set(rows[0]) == {"id", "begins", "name", "scopes", "created", "expiry", "last_used_at", "current"}
    assert rows[0]["last_used_at"]


HUB_TOKEN = "hf_abcdefghijklmnop"


def test_the_hubs_token_is_set_and_deleted_and_never_read_back(
    client_of: Any, ada: User, stranger: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.accounts.hub.is_known", lambda _: True)
    address, client = "/api/v1/hub-token/", client_of(ada)
    assert client.get(address).json() == {"stored": False, "known": None}
    answer = client.put(address, {"token": HUB_TOKEN}, format="json")
    assert (answer.status_code, answer.json()) == (200, {"stored": True, "known": True})
    assert hub_token(ada) == HUB_TOKEN
    assert HUB_TOKEN not in client.get(address).content.decode()
    assert client_of(stranger).get(address).json()["stored"] is False
    for scope in ("read", "label", "chat"):
        assert client_of(ada, scope).put(address, {"token": HUB_TOKEN}, format="json").status_code == 403, scope
        assert client_of(ada, scope).delete(address).status_code == 403, scope
    rubbish: list[dict[str, Any]] = [
        {},
        {"token": ""},
        {"token": "short"},
        {"token": "hf two words"},
        {"token": "x" * 600},
        {"token": []},
    ]
    for fields in rubbish:
        refused = client.put(address, fields, format="json")
        assert (refused.status_code, HUB_TOKEN in refused.content.decode()) == (400, False), fields
    monkeypatch.setattr("webapp.accounts.hub.is_known", lambda _: False)
    unknown = client.put(address, {"token": "hf_other_other_other"}, format="json")
    assert (unknown.status_code, "does not know this token" in unknown.json()["message"]) == (400, True)
    assert hub_token(ada) == HUB_TOKEN
    assert client.delete(address).status_code == 204
    assert hub_token(ada) == ""


def test_a_token_ends_itself(client_of: Any, ada: User) -> None:
    client = client_of(ada, "label")
    own = tokens_of(ada).get()
    assert client.delete(f"/api/v1/tokens/{own.digest}/").status_code == 403  # it may not even read
    client = client_of(ada, "read")
    own = existing(tokens_of(ada).first())
    assert client.delete(f"/api/v1/tokens/{own.digest}/").status_code == 204
    assert client.get("/api/v1/tokens/").status_code == 401


def test_ending_another_token_takes_the_manage_scope(client_of: Any, ada: User) -> None:
    other, _ = create_api_token(user=ada, name="Other", scopes=["chat"])
    address = f"/api/v1/tokens/{other.digest}/"
    answer = client_of(ada, "read").delete(address)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert client_of(ada, "read", "manage").delete(address).status_code == 204
    assert client_of(ada, "read", "manage").delete(address).status_code == 404


def test_nobody_ends_the_token_of_somebody_else(client_of: Any, ada: User, stranger: User) -> None:
    theirs, _ = create_api_token(user=stranger, name="Theirs", scopes=["chat"])
    assert client_of(ada).delete(f"/api/v1/tokens/{theirs.digest}/").status_code == 404
    assert tokens_of(stranger).count() == 1


def code_of(response: Any) -> str:
    """The code of an error; empty for what is none."""
    return response.json()["code"] if response.status_code >= 400 else ""


@pytest.mark.parametrize(("route", "view"), ENDPOINTS, ids=[route for route, _ in ENDPOINTS])
def test_an_endpoint_opens_to_a_token_of_its_scope_only(
    client_of: Any, root: User, rows: Any, route: Any, view: Any
) -> None:
    address, _owners = filled(route, rows)
    for method, permission in view.needs.items():
        scope = SCOPES[permission]
        others = [other for other in ApiToken.Scope.values if other != scope]
        refused = getattr(client_of(root, *others), method.lower())(address, format="json")
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing"), f"{method} {address}"
        assert scope in refused.json()["message"]
        opened = getattr(client_of(root, scope), method.lower())(address, format="json")
        assert code_of(opened) not in ("scope_missing", "not_authenticated"), f"{method} {address}"


@pytest.mark.parametrize(
    ("method", "address", "status"), [("get", "/v1/models", 200), ("post", "/v1/chat/completions", 400)]
)
def test_openais_face_takes_tokens_for_chatting(
    client_of: Any, root: User, method: Any, address: Any, status: Any
) -> None:
    others = [scope for scope in ApiToken.Scope.values if scope != "chat"]
    refused = getattr(client_of(root, *others), method)(address, format="json")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope_missing")
    opened = getattr(client_of(root, "chat"), method)(address, format="json")
    assert opened.status_code == status


@pytest.mark.parametrize("secret", ["", "x", "x" * 64, "²" * 64, "a b"])
def test_an_unknown_token_opens_nothing(client: Client, db: None, secret: Any) -> None:
    answer = client.get("/api/v1/projects/", headers={"authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.json()["code"]) in ((401, "authentication_failed"), (401, "not_authenticated"))
