"""API tokens have a name, scopes and an end, and end with the password that they were made under."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from tests.factories import PASSWORD
from webapp.accounts.access import ROLES, SCOPES
from webapp.accounts.models import ApiToken, User
from webapp.accounts.tokens import create_api_token, tokens_of
from webapp.errors import BadInput

NEW = "a quite different phrase"
FORM = {"name": "Nightly export", "scopes": ["read"], "days": "30"}


@pytest.fixture
def adas(client: Client, root: User, ada: User) -> Client:
    """A browser in which Ada has just signed in."""
    client.post("/accounts/login/", {"login": ada.email, "password": PASSWORD})
    return client


def works(secret: str) -> bool:
    answer = APIClient().get("/api/v1/projects/", headers={"authorization": f"Bearer {secret}"})
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def token(person: User, **fields: object) -> str:
    return create_api_token(**{"user": person, "name": "Test", "scopes": ["read"], **fields})[1]  # type: ignore[arg-type]


def test_a_token_is_shown_once_with_what_it_is_for(adas: Any, ada: User) -> None:
    page = adas.post("/profile/tokens/", FORM)
    secret = page.context["secret"]
    assert secret in page.content.decode()
    again = adas.get("/profile/").content.decode()
    assert secret not in again
    assert "Nightly export" in again
    assert works(secret)
    (made,) = tokens_of(ada)
    assert (made.scopes, made.expiry - made.created) == (["read"], pytest.approx(timedelta(days=30), abs=timedelta(1)))


def test_reloading_the_page_with_a_token_makes_no_second_one(adas: Any, ada: User) -> None:
    form = {**FORM, "form_token": adas.get("/profile/").context["form_token"]}
    adas.post("/profile/tokens/", form)
    page = adas.post("/profile/tokens/", form, follow=True)

    assert "This token was made before." in page.content.decode()
    assert tokens_of(ada).count() == 1


def test_a_token_can_be_revoked(adas: Any, ada: User) -> None:
    secret = token(ada)
    adas.post(f"/profile/tokens/{tokens_of(ada).get().digest}/revoke/")
    assert not works(secret)


def test_nobody_revokes_the_token_of_somebody_else(adas: Any, stranger: User) -> None:
    secret = token(stranger)
    assert adas.post(f"/profile/tokens/{tokens_of(stranger).get().digest}/revoke/").status_code == 404
    assert works(secret)


def test_who_signed_in_long_ago_gives_the_password_again(client: Client, root: User, ada: User) -> None:
    client.force_login(ada)  # a session without a password given in it
    asked = client.post("/profile/tokens/", FORM)
    assert asked.status_code == 302
    assert asked.headers["Location"].startswith("/accounts/reauthenticate/")
    assert not tokens_of(ada)
    refused = client.post(asked.headers["Location"], {"password": "wrong", "next": "/profile/tokens/"})
    assert refused.status_code == 200
    page = client.post(asked.headers["Location"], {"password": PASSWORD, "next": "/profile/tokens/"})
    assert works(page.context["secret"])
    assert tokens_of(ada).get().name == "Nightly export"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"name": ""}, "required"), ({"scopes": []}, "required"), ({"scopes": ["all"]}, "valid choice"),
     ({"days": "0"}, "valid choice"), ({"days": "9999"}, "valid choice")],
)  # fmt: skip
def test_a_form_that_will_not_do_makes_no_token(adas: Any, ada: User, wrong: Any, said: Any) -> None:
    page = adas.post("/profile/tokens/", {**FORM, **wrong})
    assert said in page.content.decode()
    assert not tokens_of(ada)


def test_a_token_without_an_end_is_the_operators_choice(adas: Any, ada: User, settings: Any) -> None:
    with pytest.raises(BadInput, match=r"^days: "):
        token(ada, days=None)
    assert ">never<" not in adas.get("/profile/").content.decode()
    settings.TOKENS_WITHOUT_END = True
    adas.post("/profile/tokens/", {**FORM, "days": "0"})
    assert tokens_of(ada).get().expiry is None


def test_a_token_ends_after_90_days_by_default(ada: User) -> None:
    secret = token(ada)
    made = tokens_of(ada).get()
    assert made.expiry - made.created == pytest.approx(timedelta(days=90), abs=timedelta(minutes=1))
    ApiToken.objects.update(expiry=timezone.now())
    assert not works(secret)
    assert not tokens_of(ada)


def test_the_last_use_is_shown(adas: Any, ada: User) -> None:
    secret = token(ada)
    assert ">never<" in adas.get("/profile/").content.decode()
    assert works(secret)
    used = tokens_of(ada).get().last_used_at
    assert works(secret)
    assert tokens_of(ada).get().last_used_at == used  # within the minute nothing is written
    assert ">never<" not in adas.get("/profile/").content.decode()


def test_a_token_of_a_deactivated_person_does_not_work(ada: User) -> None:
    secret = token(ada)
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert not works(secret)


def change(client: Client, ada: User) -> None:
    fields = {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW}
    assert client.post("/accounts/password/change/", fields).status_code == 302


def reset(client: Client, ada: User) -> None:
    Client().post("/accounts/password/reset/", {"email": ada.email})
    link = re.search(r"/accounts/password/reset/key/\S+", str(mail.outbox[-1].body))[0]  # type: ignore[index]
    browser = Client()
    form = browser.get(link, follow=True)
    browser.post(form.redirect_chain[-1][0], {"password1": NEW, "password2": NEW})


def by_command(client: Client, ada: User) -> None:
    user = User.objects.get(pk=ada.pk)
    user.set_password(NEW)
    user.save()


@pytest.mark.parametrize("way", [change, reset, by_command])
def test_a_new_password_ends_every_token_made_before(adas: Any, ada: User, settings: Any, way: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    before = token(ada)
    way(adas, ada)
    assert User.objects.get(pk=ada.pk).check_password(NEW)
    assert not works(before)
    assert not tokens_of(ada)
    assert works(token(User.objects.get(pk=ada.pk)))


def test_a_better_hash_of_the_same_password_ends_no_token(ada: User, settings: Any) -> None:
    class Better(MD5PasswordHasher):
        algorithm = "better"

    settings.PASSWORD_HASHERS = [f"{__name__}.Better", "django.contrib.auth.hashers.MD5PasswordHasher"]
    globals()["Better"] = Better
    secret = token(ada)
    assert User.objects.get(pk=ada.pk).check_password(PASSWORD)
    assert User.objects.get(pk=ada.pk).password.startswith("better$")
    assert works(secret)


def test_tokens_are_bounded(ada: User) -> None:
    for _ in range(50):
        token(ada)
    with pytest.raises(BadInput, match="50 tokens"):
        token(ada)


def test_every_permission_has_a_scope() -> None:
    assert set(SCOPES) == {*ROLES, "signed_in"}
    assert set(SCOPES.values()) == set(ApiToken.Scope.values)


def test_tokens_from_before_go_on_for_everything_and_get_an_end(ada: User) -> None:
    secret = token(ada)
    made = ApiToken.objects.get()
    keep = import_module("webapp.accounts.migrations.0005_keep_tokens")
    with connection.cursor() as cursor:
        cursor.execute(keep.GIVE_BACK)
        cursor.execute("UPDATE knox_authtoken SET expiry = NULL")
        assert not works(secret)
        cursor.execute(keep.KEEP)
    kept = ApiToken.objects.get()
    assert (kept.digest, kept.created, kept.scopes) == (made.digest, made.created, ApiToken.Scope.values)
    assert kept.expiry - timezone.now() == pytest.approx(timedelta(days=90), abs=timedelta(minutes=5))
    assert works(secret)


def test_an_empty_installation_migrates(db: None) -> None:
    call_command("migrate", check_unapplied=True, verbosity=0)
