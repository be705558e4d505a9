"""Forgotten passwords, with mail and without; addresses; and what no log holds."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import authenticate
from django.core import mail
from django.core.management import CommandError, call_command
from django.test import Client

from tests import factories
from webapp.accounts.models import Project, User
from webapp.accounts.passwords import password_link
from webapp.errors import Conflict, NotAllowed
from webapp.logs import LineFormatter

NEW = "a battery staple horse"


def set_password(link: str, password: str = NEW) -> int:
    """Open the link in a fresh browser and send the form; the status of the page that asks for the password."""
    browser = Client()
    page = browser.get(link, follow=True)
    browser.post(page.request["PATH_INFO"], {"password1": password, "password2": password})
    return page.status_code


def can_sign_in(user: User, password: str = NEW) -> bool:
    return authenticate(username=user.email, password=password) is not None


def test_whoever_runs_the_installation_makes_a_link_that_works_once(
    client: Client, root: User, project: Project, ann: User
) -> None:
    client.force_login(root)
    page = client.post(f"/people/{ann.pk}/password/")
    link = page.context["link"]
    assert link.encode() in page.content
    assert page["Cache-Control"] == "no-store"

    assert set_password(link) == 200
    assert can_sign_in(ann)
    assert b"does not work anymore" in Client().get(link, follow=True).content


@pytest.mark.parametrize("person", ["ada", "mo", "ann", "stranger"])
def test_nobody_else_makes_one_for_anybody(
    client: Client, root: User, project: Project, person: Any, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(person)
    client.force_login(user)

    for target in (root, user, factories.person()):
        assert client.post(f"/people/{target.pk}/password/").status_code == 403
        with pytest.raises(NotAllowed):
            password_link(user=target, by=user)
    assert client.get("/people/").status_code == 403


def test_a_link_ends_after_a_while(settings: Any, root: User, ann: User) -> None:
    link = password_link(user=ann, by=root)
    assert settings.PASSWORD_RESET_TIMEOUT == 24 * 3600
    settings.PASSWORD_RESET_TIMEOUT = -1

    assert b"does not work anymore" in Client().get(link, follow=True).content


def test_a_deactivated_account_gets_no_link(root: User, ann: User) -> None:
    User.objects.filter(pk=ann.pk).update(is_active=False)
    ann.refresh_from_db()

    with pytest.raises(Conflict, match="deactivated"):
        password_link(user=ann, by=root)


def test_the_people_are_found_by_name_and_address(
    client: Client, root: User, project: Project, ann: User, stranger: User
) -> None:
    client.force_login(root)
    found = client.get("/people/", {"q": "ANN@"}).context["people"]

    assert list(found) == [ann]


def test_the_administrator_gets_a_link_on_the_command_line(root: User, settings: Any) -> None:
    settings.SITE_URL = "http://127.0.0.1:8000"
    said = io.StringIO()
    call_command("password_link", "ROOT@example.org", stdout=said)
    set_password(said.getvalue().strip().removeprefix("http://127.0.0.1:8000"))

    assert can_sign_in(root)
    with pytest.raises(CommandError, match="no account"):
        call_command("password_link", "nobody@example.org")


def test_without_mail_the_pages_say_so_and_nothing_is_sent(client: Client, root: User, settings: Any) -> None:
    assert not settings.SENDS_MAIL  # as it is by default
    page = client.get("/accounts/password/reset/").content.decode()
    assert "does not send email" in page
    assert '<form method="post" action="/accounts/password/reset/"' not in page

    client.post("/accounts/password/reset/", {"email": root.email})
    done = client.get("/accounts/password/reset/done/").content.decode()
    assert "does not send email" in done
    assert "on its way" not in done


def test_with_mail_a_link_is_sent_and_works(client: Client, ann: User, settings: Any) -> None:
    settings.SENDS_MAIL = True
    page = client.post("/accounts/password/reset/", {"email": ann.email}, follow=True)
    assert b"a link is on its way" in page.content
    (path,) = re.findall(r"https?://[^/]+(/accounts/password/reset/key/\S+)", str(mail.outbox[0].body))

    set_password(path)
    assert can_sign_in(ann)


def test_sign_in_offers_a_new_password_once(client: Client, root: User) -> None:
    page = client.get("/accounts/login/").content.decode()

    assert page.count("/accounts/password/reset/") == 1
    assert "Forgot your password?" in page


@pytest.mark.parametrize(
    "path", ["/invitations/SECRET/", "/invitations/SECRET/accept/", "/accounts/password/reset/key/1-SECRET/"]
)
def test_no_log_holds_a_secret_of_an_address(client: Client, root: User, path: Any) -> None:
    kept = io.StringIO()
    handler = logging.StreamHandler(kept)
    handler.setFormatter(LineFormatter())
    logging.getLogger().addHandler(handler)
    try:
        client.get(path)
        client.post(path)
    finally:
        logging.getLogger().removeHandler(handler)

    assert "SECRET" not in kept.getvalue()


def test_mail_goes_to_no_log_unless_a_developer_asks(settings: Any) -> None:
    from webapp import settings as own

    assert own.EMAIL_BACKEND == "django.core.mail.backends.dummy.EmailBackend"


def test_addresses_cannot_have_to_be_confirmed_without_mail() -> None:
    program = "import webapp.settings"
    environment = {**os.environ, "EMAIL_VERIFICATION": "mandatory"}
    environment.pop("EMAIL_URL", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "EMAIL_VERIFICATION=mandatory needs EMAIL_URL" in done.stderr
    environment["EMAIL_URL"] = "smtp://mail.example:25"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("action", ["action_add", "action_primary"])
def test_an_address_of_somebody_else_is_refused_with_a_sentence(
    client: Client, ann: User, stranger: User, action: Any
) -> None:
    client.force_login(ann)
    EmailAddress.objects.create(user=ann, email=stranger.email)  # added before the other signed up
    page = client.post("/accounts/email/", {"email": stranger.email.upper(), action: ""}, follow=True)

    assert page.status_code == 200
    assert b"belongs to another account" in page.content
    ann.refresh_from_db()
    assert ann.email == "ann@example.org"


def test_a_free_address_becomes_the_one_to_sign_in_with(client: Client, ann: User) -> None:
    client.force_login(ann)
    page = client.post("/accounts/email/", {"email": "ann@new.example", "action_add": ""}, follow=True)
    assert b"Saved ann@new.example." in page.content  # and not that a mail is on its way

    client.post("/accounts/email/", {"email": "ann@new.example", "action_primary": ""})
    ann.refresh_from_db()
    assert ann.email == "ann@new.example"
