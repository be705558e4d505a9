"""Every address, asked for as every role and as nobody: each answers as the permission that its view declares says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import transaction
from django.http import HttpResponse
from django.test import Client

from tests.addresses import LEFT_OUT, declared, filled, ours
from tests.narrowing import existing
from webapp.accounts.access import ROLES
from webapp.accounts.models import Role, User

WORDS = frozenset({"public", "signed_in", "superuser", "token", *ROLES})
PEOPLE = ("ada", "mo", "ann", "tess", "stranger", "root", "nobody")
ROLE = {"ada": Role.OWNER, "mo": Role.MANAGER, "ann": Role.ANNOTATOR, "tess": Role.TESTER, "root": Role.OWNER}
SENTENCE = re.compile(r'data-error-message[^>]*>(.*?)<|"message": ?"(.*?)"', re.DOTALL)
# What an allowed person gets who asks with nothing in hand: 200 from a GET and 302 from a POST, but for these. The rows
# behind the addresses are those of `rows_behind`.
ANSWERS = {
    "api_deploy": 503,  # no model server runs here
    "api_model_uploads": 400,
    "api_judge_job_continue": 409, "api_judge_job_stop": 200,
    "api_model_needs": 400,
    "api_next": 200, "api_release": 204, "api_renew": 200, "api_roll_back": 409, "api_run_resume": 409,
    "api_run_stop": 409, "api_skip": 204, "api_submit_demonstration": 400, "api_submit_ranking": 404,
    "api_submit_review": 404, "api_token": 404,
    "api_comparison_continue": 409, "api_comparison_stop": 200, "comparison_continue": 409, "comparison_download": 409,
    "chat_edit": 400, "chat_regenerate": 400, "chat_rename": 400, "chat_send": 400, "chat_thumb": 400,
    "data_import_check": 409, "data_import_confirm": 409,
    "demo_again": 404, "demo_report": 404,  # the project is no sample
    "deployment_roll_back": 409, "model_archive": 409, "model_deploy": 400,
    "guidelines_preview": 200, "invitation": 404, "invitation_accept": 404, "invitation_new": 200,
    "invitation_revoke": 404, "member_role": 400, "person_password_link": 200,
    "judge_agreement": 400, "judge_archive": 409, "judge_compare": 400, "judge_cost": 200, "judge_job_continue": 409,
    "judge_reward": 404, "judge_try": 400,
    "label_draft": 200, "label_guidelines": 200, "label_preview": 200, "label_renew": 200, "label_submit": 400,
    "label_undo": 404, "label_unskip": 409,
    "run_advice": 200, "run_rewards": 200, "run_import": 409, "run_resume": 409, "run_retry": 400, "run_stop": 409,
    "token_new": 302, "hub_token": 302, "token_revoke": 404,
}  # fmt: skip
# The only owner cannot leave, and who runs the installation is no member.
OF_PERSON = {("member_leave", "ada"): 409, ("member_leave", "root"): 404}


@pytest.mark.parametrize(("route", "pattern"), ours(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_view_names_the_permission_it_needs(route: Any, pattern: Any) -> None:
    assert declared(pattern) in WORDS, f"/{route} is served by {pattern.callback!r}, which declares no permission"


@contextmanager
def undone() -> Iterator[None]:
    """What is done within is as if it had not been, so that every address finds the same rows."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def asked(client: Client, address: str) -> tuple[str, HttpResponse]:
    """The answer to a GET, or to the method that the address takes instead, with it."""
    kind = {"content_type": "application/json"} if address.startswith("/api/") else {}
    for method in ("get", "post", "delete"):
        response = getattr(client, method)(address, **(kind if method == "post" else {}))
        if response.status_code != 405:
            break
    return method, response


def refusal(permission: str, person: str, owners: set[str], address: str) -> set[int]:
    """The statuses by which the person is turned away; empty for whoever may."""
    if permission == "public":
        return set()
    if permission == "token":
        return {401}  # a session opens nothing there
    if person == "nobody":
        return {401} if address.startswith("/api/") else {302}
    if permission == "signed_in":
        return set()
    if permission == "superuser":
        return set() if person == "root" else {403}
    role = ROLE.get(person)
    others = owners - {""}
    if role is None:
        return {404} if owners else set()
    if role not in ROLES[permission]:
        return {403, 404} if others else {403}
    return {403, 404} if others and person not in owners else set()


@pytest.mark.parametrize("person", PEOPLE)
def test_every_address_answers_each_role_as_declared(person: Any, rows: Any, request: pytest.FixtureRequest) -> None:
    client = Client(raise_request_exception=False)
    if person != "nobody":
        client.force_login(request.getfixturevalue(person))
    wrong = []
    for route, pattern in ours():
        address, owners = filled(route, rows)
        with undone():
            method, response = asked(client, address)
        status = response.status_code
        usual = OF_PERSON.get(
            (existing(pattern.name), person), ANSWERS.get(existing(pattern.name), 200 if method == "get" else 302)
        )
        if status not in (refusal(declared(pattern), person, owners, address) or {usual}):
            wrong.append(f"{person} gets {status} at {method} {address} ({pattern.name}: {declared(pattern)})")
        elif status == 302 and person == "nobody" and declared(pattern) != "public":
            assert response.headers["Location"].startswith("/accounts/login/?next="), address
    assert not wrong, "\n".join(wrong)


def test_a_stranger_cannot_tell_what_exists(stranger: User, rows: Any) -> None:
    """The answer about somebody else's row is the one about a row that nobody has."""
    client = Client(raise_request_exception=False)
    client.force_login(stranger)
    nothing = {name: ((2**31 - 1, "") if isinstance(value, int) else (value, "")) for name, (value, _) in rows.items()}
    told = []
    for route, pattern in ours():
        there, absent = filled(route, rows)[0], filled(route, nothing)[0]
        if there == absent or declared(pattern) in ("public", "token", "superuser"):
            continue
        with undone():
            answers = [asked(client, address)[1] for address in (there, absent)]
        words = [SENTENCE.findall(answer.content.decode()) for answer in answers]
        if answers[0].status_code != answers[1].status_code or words[0] != words[1]:
            told.append(f"{there}: {answers[0].status_code} {words[0]}, {absent}: {answers[1].status_code} {words[1]}")
    assert not told, "\n".join(told)


def test_every_page_that_is_gone_back_to_is_whole(ada: User, rows: Any) -> None:
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
def test_the_pages_of_an_account_want_a_sign_in(client: Client, address: Any, root: User) -> None:
    assert client.get(address).status_code == 302


@pytest.mark.parametrize("address", ["/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"])
def test_the_ways_in_are_open(client: Client, address: Any, root: User) -> None:
    assert client.get(address).status_code == 200
