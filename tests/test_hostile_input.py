"""Every address, asked with input that nobody sends by accident: an answer that says no, never a fault of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern

from tests.addresses import LEFT_OUT, PARAMETER, filled, ours
from tests.hostile import BODIES, CONTENT_TYPES, JSON_VALUES, VALUES, WORST, client_for, failures, in_address
from webapp.accounts.models import User

PAGES = [(route, pattern) for route, pattern in ours() if pattern.name not in LEFT_OUT]
some_or_all = pytest.mark.parametrize(
    "values", [pytest.param(WORST, id="worst"), pytest.param(VALUES, id="all", marks=pytest.mark.slow)]
)


def forms_of(pattern: URLPattern) -> Any:
    return getattr(pattern.callback, "cls", None)


@some_or_all
def test_parameters_of_every_address(values: dict[str, str], root: User, rows: Any, names_read: Any) -> None:
    client = client_for(root)

    def answers() -> Iterator[tuple[str, Any]]:
        for route, _ in PAGES:
            address, _owners = filled(route, rows)
            names_read()
            client.get(address)
            for name in sorted(names_read()):
                for what, value in values.items():
                    asked = f"{address}?{name}={in_address(value)}"
                    yield f"GET {address} {name}: {what}", client.get(asked)

    assert not (wrong := failures(answers())), "\n".join(wrong)


@some_or_all
def test_fields_of_every_form(values: dict[str, str], root: User, rows: Any, names_read: Any) -> None:
    client = client_for(root)

    def answers() -> Iterator[tuple[str, Any]]:
        for route, pattern in PAGES:
            if forms_of(pattern):
                continue
            address, _owners = filled(route, rows)
            names_read()
            client.post(address, {})
            for name in sorted(names_read()):
                for what, value in values.items():
                    sent = value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
                    yield f"POST {address} {name}: {what}", client.post(address, {name: sent})

    assert not (wrong := failures(answers())), "\n".join(wrong)


@some_or_all
def test_parts_of_every_address(values: dict[str, str], root: User, rows: Any) -> None:
    client = client_for(root)

    def answers() -> Iterator[tuple[str, Any]]:
        for route, _ in PAGES:
            plain, _owners = filled(route, rows)
            parts = plain[1:].split("/")
            for number, part in enumerate(route.split("/")):
                if not PARAMETER.search(part):
                    continue
                for what, value in values.items():
                    hostile = PARAMETER.sub(lambda _, value=value: in_address(value), part)  # type: ignore[misc]
                    address = "/" + "/".join([*parts[:number], hostile, *parts[number + 1 :]])
                    yield f"{route}: {what}", client.get(address)
                    yield f"{route}: {what}", client.post(address)

    assert not (wrong := failures(answers())), "\n".join(wrong)


def api() -> list[tuple[str, URLPattern]]:
    return [(route, pattern) for route, pattern in PAGES if forms_of(pattern)]


def test_bodies_of_every_endpoint(root: User, rows: Any) -> None:
    client = client_for(root)

    def answers() -> Iterator[tuple[str, Any]]:
        for route, _ in api():
            address, _owners = filled(route, rows)
            for what, body in BODIES.items():
                yield f"{address}: {what}", client.post(address, body, content_type="application/json")
            for kind in CONTENT_TYPES:
                yield f"{address}: {kind!r}", client.generic("POST", address, b'{"a": 1}', content_type=kind)
            for method in ("put", "patch", "delete", "trace"):
                yield f"{method} {address}", getattr(client, method)(address)

    assert not (wrong := failures(answers())), "\n".join(wrong)


def test_fields_of_every_endpoint(root: User, rows: Any) -> None:
    client = client_for(root)
    schema = client.get("/api/v1/schema/", headers={"accept": "application/vnd.oai.openapi+json"}).json()

    def answers() -> Iterator[tuple[str, Any]]:
        for path, operations in schema["paths"].items():
            content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            fields = schema["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]["properties"]
            address, _owners = filled(
                path.lstrip("/").replace("{slug}", "<slug:slug>").replace("{id}", "<int:pk>"), rows
            )
            for name, field in fields.items():
                inner = properties(schema, field)
                for what, value in JSON_VALUES.items():
                    nested = (f'{{"{name}": {{"{key}": {value}}}}}' for key in inner)
                    for body in (f'{{"{name}": {value}}}', *nested):
                        asked = with_defaults(body, name, address)
                        response = client.post(address, asked, content_type="application/json")
                        yield f"{address} {name}: {what}", response

    assert not (wrong := failures(answers())), "\n".join(wrong)


def properties(schema: Any, field: Any) -> list[str]:
    """The names inside a field that is an object."""
    reference = field.get("$ref") or field.get("allOf", [{}])[0].get("$ref", "")
    return list(schema["components"]["schemas"].get(reference.rpartition("/")[2], {}).get("properties", {}))


def with_defaults(body: str, name: str, address: str) -> str:
    """The body with what the endpoint must have beside the field, so that the field itself is what is refused."""
    kinds: dict[str, dict[str, Any]] = {
        "snapshots": {"kind": "prompts"},
        "runs": {"stage": "sft"},
        "ranking": {"groups": [[1]]},
    }
    needed = {"token": "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"} | kinds.get(address.rstrip("/").rpartition("/")[2], {})
    others = {key: value for key, value in needed.items() if key != name}
    return body[:-1] + ("," + json.dumps(others)[1:] if others else "}")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer \xff\xfe"}, {"authorization": "Bearer"}, {"authorization": "Bearer a b"},
        {"authorization": "Bearer " + "x" * 5000}, {"authorization": "Bearer ²"}, {"cookie": 'sessionid="\\000"'},
        {"cookie": "sessionid=" + "x" * 4000}, {"cookie": 'csrftoken="\\000"; sessionid="a\\000aaaaaaaaaaaaaa"'},
        {"accept": "application/x-nonesuch"}, {"accept": "\xff"}, {"last-event-id": "²"},
        {"accept-language": "x" * 5000},
        {"host": "evil.example"}, {"host": "\xff"}, {"x-forwarded-for": "²"}, {"range": "bytes=²-"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("address", ["/", "/accounts/login/", "/chat/", "/api/v1/projects/", "/v1/models", "/static/x"])
def test_hostile_headers(db: None, address: str, headers: dict[str, str]) -> None:
    client = Client(raise_request_exception=False)
    response = client.get(address, headers=headers)
    assert response.status_code < 500
    if address.startswith(("/api/", "/v1/")):
        assert "json" in response.headers["Content-Type"]


@pytest.mark.parametrize("address", ["/api/v1/nonesuch/", "/api/", "/v1/nonesuch", "/v1/", "/api/v1/projects"])
def test_what_is_not_there_is_said_in_json(db: None, address: str) -> None:
    response = Client().get(address, follow=True)
    assert response.status_code in (401, 404)
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("name", ["deep list", "5000 digits", "NaN", "not UTF-8", "NUL", "half a character"])
def test_a_bad_body_is_answered_in_the_words_of_the_contract(root: User, project: Any, name: str) -> None:
    body = BODIES[name]
    response = client_for(root).post("/api/v1/projects/kite/snapshots/", body, content_type="application/json")
    assert response.status_code == 400
    assert set(response.json()) >= {"code", "message"}


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "x"])
def test_a_body_that_is_not_json_is_refused_as_such(root: User, project: Any, kind: str) -> None:
    response = client_for(root).generic("POST", "/api/v1/projects/kite/snapshots/", b"kind=prompts", content_type=kind)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_a_wrong_field_is_named(root: User, project: Any) -> None:
    body = {"kind": "prompts", "filters": {"limit": "a", "ids": [[1]]}}
    response = client_for(root).post("/api/v1/projects/kite/snapshots/", body, content_type="application/json")
    assert response.status_code == 400
    assert set(response.json()["fields"]["filters"]) == {"limit", "ids"}
    assert response.json()["message"].startswith("filters.limit: ")
