"""The schema says the truth: whatever fits it or breaks it gets an answer that it names, and never a fault of ours."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from django.test import Client
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.addresses import filled, ours
from webapp.accounts.models import ApiToken, Project, User
from webapp.accounts.tokens import create_api_token

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 25


def openapi(client: Any) -> dict[str, Any]:
    schema: dict[str, Any] = client.get(
        "/api/v1/schema/", headers={"accept": "application/vnd.oai.openapi+json"}
    ).json()
    return schema


def test_every_operation_documents_its_errors_and_its_scope(client: Client, db: None) -> None:
    for path, operations in openapi(client)["paths"].items():
        for method, operation in operations.items():
            needed = {"400", "401", "403", "404"} | ({"409", "413", "415"} if method == "post" else set())
            assert needed <= set(operation["responses"]), f"{method} {path}"
            assert "Scope of the token: `" in operation["description"], f"{method} {path}"
            error = operation["responses"]["404"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/Error"}


def test_the_schema_names_how_to_sign_in(client: Client, db: None) -> None:
    schemes = openapi(client)["components"]["securitySchemes"]
    assert schemes["apiToken"]["scheme"] == "bearer"


def test_every_endpoint_is_in_the_schema(client: Client, db: None) -> None:
    paths = {path.replace("{id}", "{pk}") for path in openapi(client)["paths"]}
    for route, pattern in ours():
        if hasattr(pattern.callback, "cls") and pattern.name != "api_schema":
            plain = "/" + route
            for kind in ("slug:", "int:", "str:", "path:"):
                plain = plain.replace(f"<{kind}", "{")
            assert plain.replace(">", "}") in paths


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "broken"])
def test_no_answer_is_outside_the_schema(address: Any, root: User, project: Project, rows: Any, mode: Any) -> None:
    site = f"http://{address[0]}:{address[1]}"
    _, secret = create_api_token(user=root, name="Test", scopes=ApiToken.Scope.values)
    headers = {"Authorization": f"Bearer {secret}"}
    schema = schemathesis.openapi.from_url(f"{site}/api/v1/schema/?format=json")
    wrong: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]
        for parameters in ({}, ids_of(operation.path, rows)):
            try:
                cases = operation.as_strategy(generation_mode=mode, path_parameters=parameters)
                try_cases(cases, headers)
            except Exception as error:  # noqa: BLE001 (all operations are tried; what failed is listed below)
                wrong.append(f"{operation.method} {operation.path}: {error!r} {getattr(error, 'exceptions', '')}")
    assert not wrong, "\n\n".join(wrong)


def ids_of(path: str, rows: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    """The parameters of a path, as the rows there are."""
    route = path.lstrip("/").replace("{slug}", "<slug:slug>").replace("{id}", "<int:pk>")
    route = route.replace("{digest}", "<str:digest>").replace("{kind}", "<str:kind>")
    parts = filled(route, rows)[0].lstrip("/").split("/")
    names = path.lstrip("/").split("/")
    return {name.strip("{}"): part for name, part in zip(names, parts, strict=True) if name.startswith("{")}


def try_cases(cases: Any, headers: dict[str, str]) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=cases)
    def check(case: Any) -> None:
        response = case.call(headers=headers)
        checks = CHECKS[1:] if response.status_code == 503 else CHECKS  # no model server runs here
        case.validate_response(response, checks=checks)

    check()
