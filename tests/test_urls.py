"""Every address, asked for as every role and as nobody: each answers as the permission that its view declares says."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.addresses import LEFT_OUT, declared, filled, ours
from webapp.accounts.access import ROLES
from webapp.accounts.models import Role

WORDS = frozenset({"public", "signed_in", "superuser", "token", *ROLES})
PEOPLE = ("ada", "mo", "ann", "tess", "stranger", "root", "nobody")
ROLE = {"ada": Role.OWNER, "mo": Role.MANAGER, "ann": Role.ANNOTATOR, "tess": Role.TESTER, "root": Role.OWNER}
FINE = frozenset({200, 201, 202, 204, 302, 400, 404, 405, 409, 410, 415, 422, 429, 503})


@pytest.mark.parametrize(("route", "pattern"), ours(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_view_names_the_permission_it_needs(route, pattern):
    assert declared(pattern) in WORDS, f"/{route} is served by {pattern.callback!r}, which declares no permission"


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


def test_every_page_that_is_gone_back_to_is_whole(ada, rows):
    """htmx, restoring a page from the history, puts the answer in place of the whole body."""
    client = Client()
    client.force_login(ada)
    halves = []
    for route, pattern in ours():
        address = filled(route, rows)[0]
        page = client.get(address)
        if pattern.name in LEFT_OUT or page.streaming or b"<html" not in page.content:
            continue
        again = client.get(address, headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
        if again.status_code != 429 and b"<html" not in again.content:
            halves.append(address)
    assert not halves


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
