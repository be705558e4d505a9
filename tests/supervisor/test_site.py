from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from webapp.setup_code import setup_code
from webapp.supervisor import apps, site
from webapp.supervisor.folder import CannotStart


def test_a_taken_port_is_named_with_who_has_it_and_how_to_choose_another() -> None:
    with site.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        told = rf"Port {port} on 127.0.0.1 .*process {os.getpid()}.*make run PORT={port + 1}.*--port {port + 1}"
        with pytest.raises(CannotStart, match=told):
            site.listen("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(CannotStart, match=r"on 192\.0\.2\.1 cannot be used"):
        site.listen("192.0.2.1", 0)


def test_any_port_will_do_where_that_was_asked_for() -> None:
    with site.listen("127.0.0.1", 0) as taken:
        options = site.SiteOptions(port=taken.getsockname()[1], any_port=True)
        with site.listen_somewhere(options) as other:
            assert other.getsockname()[1] != options.port


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
def test_the_address_is_one_that_a_browser_here_can_open(host: str, shown: str) -> None:
    try:
        listening = site.listen(host, 0)
    except CannotStart:
        pytest.skip(f"this machine has no {host}")
    with listening:
        assert site.site_url(listening) == f"http://{shown}:{listening.getsockname()[1]}"


def test_the_first_person_is_sent_to_sign_up_and_the_next_to_log_in() -> None:
    assert "Make the first account, which runs it: http://x/" in site.welcome(
        "http://x", has_admin=False, entrance="http://x/"
    )
    assert "Log in at http://x/accounts/login/" in site.welcome("http://x", has_admin=True)


def test_only_a_terminal_sees_the_setup_code_and_only_where_one_is_needed() -> None:
    here, elsewhere = "http://127.0.0.1:8000", "https://tutelage.example.org"
    assert site.entrance(here, listen="127.0.0.1", terminal=True) == f"{here}/accounts/signup/"
    assert site.entrance(here, listen="0.0.0.0", terminal=True).endswith(f"?code={setup_code()}")
    assert site.entrance(elsewhere, listen="127.0.0.1", terminal=True).endswith(f"?code={setup_code()}")
    assert setup_code() not in site.entrance(here, listen="0.0.0.0", terminal=False)


def test_a_database_that_cannot_be_prepared_is_told_with_the_reason(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "raise SystemExit('no such host: db.example')"
    monkeypatch.setattr(apps, "prepare_command", lambda: [sys.executable, "-c", program])
    with pytest.raises(CannotStart, match=r"(?s)could not be prepared:.*no such host: db\.example.*prepare\.log"):
        site.prepare_database({})


def test_a_port_for_the_model_server_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_SERVER_PORT", "8301")
    assert site.free_port("MODEL_SERVER_PORT") == 8301
    monkeypatch.delenv("MODEL_SERVER_PORT")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", site.free_port("MODEL_SERVER_PORT")))
