"""A person's token of the hub is stored encrypted and reaches that person's runs only."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from tests import factories
from webapp.accounts import hub
from webapp.accounts.models import HubToken, Project, User
from webapp.errors import Conflict
from webapp.runs import execution

TOKEN = "hf_abcdefghijklmnop"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the hub answers when it is asked who a token belongs to; 0: it cannot be reached."""
    says = {"status": 200}

    def get(address: str, *, headers: dict[str, str], timeout: float) -> httpx.Response:
        assert headers == {"Authorization": f"Bearer {TOKEN}"}
        if not says["status"]:
            raise httpx.ConnectError("no way there")
        return httpx.Response(says["status"])

    monkeypatch.setattr("webapp.accounts.hub.httpx.get", get)
    return says


def test_a_token_is_kept_encrypted_and_never_shown(client: Client, ada: User, answer: dict[str, int]) -> None:
    client.force_login(ada)
    page = client.post("/profile/hub-token/", {"token": f" {TOKEN} "}, follow=True).content.decode()
    assert "the hub knows it" in page
    assert TOKEN not in page
    assert TOKEN not in HubToken.objects.get().encrypted
    assert hub.hub_token(ada) == TOKEN
    client.post("/profile/hub-token/remove/")
    assert hub.hub_token(ada) == ""


@pytest.mark.parametrize(("status", "kept", "said"), [(401, 0, "does not know this token"), (0, 1, "could not be")])
def test_a_token_is_checked_where_the_hub_answers(
    client: Client, ada: User, answer: dict[str, int], status: int, kept: int, said: str
) -> None:
    answer["status"] = status
    client.force_login(ada)
    page = client.post("/profile/hub-token/", {"token": TOKEN}, follow=True).content.decode()
    assert said in page
    assert TOKEN not in page
    assert HubToken.objects.count() == kept


def test_only_ones_own_runs_that_add_a_model_get_it(project: Project, ada: User, answer: dict[str, int]) -> None:
    hub.set_hub_token(user=project.created_by, token=TOKEN)
    add = factories.run(project, "add", config={"stage": "add"})
    assert execution.hub_access(add) == {"HF_TOKEN": TOKEN}
    assert execution.hub_access(factories.run(project, "corpus", config={"stage": "corpus"})) == {}
    User.objects.filter(pk=add.created_by.pk).update(is_active=False)
    assert execution.hub_access(add) == {}


def test_another_secret_key_is_said(ada: User, answer: dict[str, int], settings: Any) -> None:
    hub.set_hub_token(user=ada, token=TOKEN)
    settings.SECRET_KEY = "another"
    with pytest.raises(Conflict, match="SECRET_KEY has changed"):
        hub.hub_token(ada)


def test_the_command_stores_checks_and_deletes_it_without_showing_it(
    ada: User, answer: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TOKEN}\n"))
    call_command("hub_token", ada.email)
    assert hub.hub_token(ada) == TOKEN
    call_command("hub_token", ada.email, "--check")
    call_command("hub_token", ada.email, "--delete")
    assert hub.hub_token(ada) == ""
    said = capsys.readouterr().out
    assert said.splitlines() == ["Stored; the hub knows it.", "A token is stored.", "No token is stored now."]
    with pytest.raises(CommandError, match="no account with the address"):
        call_command("hub_token", "nobody@example.org")
    monkeypatch.setattr("sys.stdin", io.StringIO("no token\n"))
    with pytest.raises(CommandError, match="this is not a token of the hub"):
        call_command("hub_token", ada.email)
