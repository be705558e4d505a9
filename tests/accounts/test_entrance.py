"""The first account of an installation that others can reach."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from tests import factories
from webapp.accounts import memberships
from webapp.accounts.models import Project, Role, User
from webapp.setup_code import is_reachable, setup_code

SIGN_UP = {"name": "Nia", "email": "nia@example.org", "password1": factories.PASSWORD}


@pytest.fixture
def public(settings: Any, db: None) -> None:
    settings.LISTEN = "0.0.0.0"


def test_the_first_account_needs_the_code_where_others_reach_the_site(client: Client, public: Any) -> None:
    assert b"Setup code" in client.get("/accounts/signup/").content
    for code in ("", "0000-0000-0000-0000"):
        client.post("/accounts/signup/", {**SIGN_UP, "setup_code": code})
        assert not User.objects.exists()

    page = client.get(f"/accounts/signup/?code={setup_code()}")
    client.post("/accounts/signup/", {**SIGN_UP, "setup_code": page.context["form"]["setup_code"].value()})
    assert User.objects.get().is_superuser


def test_on_this_machine_alone_no_code_is_asked_for(client: Client, db: None) -> None:
    assert b"Setup code" not in client.get("/accounts/signup/").content


def test_a_proxy_on_the_same_machine_counts_as_others(db: None) -> None:
    client = Client(headers={"x-forwarded-for": "203.0.113.7"})
    client.post("/accounts/signup/", SIGN_UP)

    assert not User.objects.exists()


def test_the_code_opens_nothing_once_somebody_runs_the_installation(client: Client, public: Any, root: User) -> None:
    client.post("/accounts/signup/", {**SIGN_UP, "setup_code": setup_code()})

    assert User.objects.count() == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("LISTEN", "::"), ("LISTEN", "192.0.2.1"), ("SITE_URL", "https://tutelage.example.org"), ("BEHIND_PROXY", True),
     ("ALLOWED_HOSTS", ["localhost", "tutelage.example.org"])],
)  # fmt: skip
def test_what_makes_a_site_reachable_by_others(settings: Any, name: Any, value: Any) -> None:
    assert not is_reachable()
    setattr(settings, name, value)
    assert is_reachable()


def test_the_command_prints_the_link_until_somebody_runs_the_installation(
    capsys: pytest.CaptureFixture[str], public: Any, settings: Any
) -> None:
    settings.SITE_URL = "https://tutelage.example.org"
    call_command("setup_code")
    assert capsys.readouterr().out == f"https://tutelage.example.org/accounts/signup/?code={setup_code()}\n"

    factories.person("Root", is_superuser=True)
    with pytest.raises(CommandError, match="already"):
        call_command("setup_code")


def test_twenty_people_of_one_office_sign_up_within_a_minute(root: User, project: Project, ada: User) -> None:
    for n in range(20):
        browser = Client(REMOTE_ADDR="203.0.113.20")
        _, secret = memberships.invite(project=project, role=Role.ANNOTATOR, by=ada)
        browser.get(f"/invitations/{secret}/")
        browser.get("/accounts/signup/")
        browser.post("/accounts/signup/", {**SIGN_UP, "email": f"p{n}@example.org"})

    assert project.memberships.filter(role=Role.ANNOTATOR).count() == 20


def test_too_many_tries_are_answered_with_a_page_of_the_site(root: User) -> None:
    browser = Client(REMOTE_ADDR="203.0.113.21")
    pages = [browser.post("/accounts/password/reset/", {"email": f"p{n}@example.org"}) for n in range(25)]

    assert pages[-1].status_code == 429
    assert b"site.css" in pages[-1].content


def test_a_stale_form_gets_a_whole_page_that_says_so(project: Project) -> None:
    client = Client(enforce_csrf_checks=True)
    page = client.post("/accounts/login/", {"login": "ada@example.org", "password": factories.PASSWORD})

    assert page.status_code == 403
    assert b"site.css" in page.content
    assert b"This page is out of date" in page.content


def test_sign_up_says_who_sees_the_name(client: Client, db: None) -> None:
    assert "Shown to your team." in client.get("/accounts/signup/").content.decode()
