"""Who asks: what a client says of its own address is believed only from a proxy."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.conf import settings
from django.core.cache import cache

from tests.factories import PASSWORD
from webapp.accounts.models import User


@pytest.fixture(autouse=True)
def fresh_limits() -> None:
    cache.clear()


def sign_in(address: tuple[str, int], email: str, password: str, forwarded: str = "") -> httpx.Response:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        client.get("/accounts/login/")
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        fields = {"login": email, "password": password, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        return client.post("/accounts/login/", data=fields, headers=headers)


def test_a_local_client_cannot_choose_the_address_it_is_limited_by(address: Any, root: User, ann: User) -> None:
    tries = [sign_in(address, f"nobody{i}@example.org", "wrong", f"192.0.2.{i}") for i in range(12)]
    assert "Too many failed login attempts" in tries[-1].text
    assert "Too many failed login attempts" not in tries[8].text


def test_behind_a_proxy_the_address_it_saw_counts(address: Any, root: User, ann: User, settings: Any) -> None:
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    tries = [sign_in(address, f"nobody{i}@example.org", "wrong", f"198.51.100.9, 192.0.2.{i}") for i in range(12)]
    assert "Too many failed login attempts" not in tries[-1].text


def test_failures_from_elsewhere_do_not_lock_the_right_person_out(
    address: Any, root: User, ann: User, settings: Any
) -> None:
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    for _ in range(8):
        assert sign_in(address, ann.email, "wrong", "192.0.2.66").status_code == 200
    locked = sign_in(address, ann.email, PASSWORD, "192.0.2.66")
    assert "Too many failed login attempts" in locked.text
    assert sign_in(address, ann.email, PASSWORD, "192.0.2.7").status_code == 302


def test_by_default_no_proxy_is_believed() -> None:
    assert settings.ALLAUTH_TRUSTED_PROXY_COUNT == 0
    assert settings.SECURE_PROXY_SSL_HEADER is None
