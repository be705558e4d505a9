"""Links lead to this site, under the name that its operator gave it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from tests.factories import PASSWORD
from webapp import settings as own
from webapp.accounts.models import Project, User


@pytest.fixture(autouse=True)
def site(settings: Any) -> None:
    settings.SITE_URL = "https://teach.example.org"
    settings.ALLOWED_HOSTS = ["teach.example.org", "other.example.org"]
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"


def test_the_name_that_tests_use_is_no_name_of_the_site() -> None:
    assert "testserver" not in own.ALLOWED_HOSTS


def test_a_reset_link_is_under_the_sites_own_address(client: Client, root: User, ann: User) -> None:
    client.post("/accounts/password/reset/", {"email": ann.email}, headers={"host": "other.example.org"})
    (message,) = mail.outbox
    assert re.search(r"https://teach\.example\.org/accounts/password/reset/key/\S+", str(message.body))
    assert "other.example.org" not in f"{message.body}{message.subject}"


def test_a_reset_for_an_unknown_address_names_the_sites_own(client: Client, root: User) -> None:
    client.post("/accounts/password/reset/", {"email": "who@example.org"}, headers={"host": "other.example.org"})
    for message in mail.outbox:
        assert "other.example.org" not in f"{message.body}{message.subject}"


def test_an_invitation_link_is_under_the_sites_own_address(client: Client, project: Project, ada: User) -> None:
    client.force_login(ada)
    page = client.post(
        "/projects/kite/invitations/", {"role": "annotator", "email": ""}, headers={"host": "other.example.org"}
    ).content.decode()
    assert "https://teach.example.org/invitations/" in page
    assert "other.example.org/invitations/" not in page


@pytest.mark.parametrize(
    "target",
    ["http://testserver/x", "https://other.example.org/x", "https://evil.example/x", "//evil.example/x",
     "/\\evil.example",
     "https:///evil.example", "javascript:alert(1)", "http://teach.example.org@evil.example/", "\thttps://evil.example"],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(client: Client, root: User, ann: User, target: Any) -> None:
    answer = client.post(
        f"/accounts/login/?next={target}",
        {"login": ann.email, "password": PASSWORD, "next": target},
        headers={"host": "teach.example.org"},
    )
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")


def test_signing_in_leads_to_the_page_that_was_asked_for(client: Client, root: User, ann: User) -> None:
    fields = {"login": ann.email, "password": PASSWORD, "next": "/projects/"}
    assert (
        client.post("/accounts/login/", fields, headers={"host": "teach.example.org"}).headers["Location"]
        == "/projects/"
    )
