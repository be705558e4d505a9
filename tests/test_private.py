"""Nothing that a signed-in person was shown is kept by a cache."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.addresses import LEFT_OUT, filled, ours
from tests.factories import PASSWORD
from webapp.accounts.models import User


def test_every_page_of_a_signed_in_person_says_no_store(root: User, rows: Any) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(root)
    kept = []
    for route, pattern in ours():
        if pattern.name in LEFT_OUT:
            continue
        response = client.get(filled(route, rows)[0])
        if "no-store" not in response.headers.get("Cache-Control", ""):
            kept.append(f"{route}: {response.headers.get('Cache-Control')}")
    assert not kept, "\n".join(kept)


@pytest.mark.parametrize("address", ["/accounts/email/", "/accounts/password/change/", "/accounts/2fa/", "/nonesuch/"])
def test_pages_of_the_account_and_errors_say_it_too(client: Client, root: User, address: Any) -> None:
    client.force_login(root)
    assert "no-store" in client.get(address).headers["Cache-Control"]


def test_the_answer_that_signs_in_says_it(client: Client, root: User, ann: User) -> None:
    response = client.post("/accounts/login/", {"login": ann.email, "password": PASSWORD})
    assert response.status_code == 302
    assert "no-store" in response.headers["Cache-Control"]


def test_what_is_nobodys_may_be_kept(client: Client, root: User) -> None:
    client.force_login(root)
    style = client.get("/static/css/chat.css")
    assert style.status_code == 200
    assert "no-store" not in style.headers.get("Cache-Control", "")
    assert "no-store" not in Client().get("/api/v1/schema/").headers.get("Cache-Control", "")
