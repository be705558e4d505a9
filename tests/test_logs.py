"""Lines of the log cannot be forged and hold no secret, whoever writes them and wherever they go."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from webapp.logs import LineFormatter

FORGED = "2026-01-01 00:00:00,000 CRITICAL root everything is lost"


def formatted(message: str, *args: object, exc_info: object = None) -> str:
    record = logging.LogRecord("x", logging.INFO, "", 0, message, args, exc_info)  # type: ignore[arg-type]
    return LineFormatter("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_message_stays_on_one_line(end: Any) -> None:
    line = formatted("GET %s", f"/invitations/{end}{FORGED}")
    assert len(line.splitlines()) == 1


def test_what_a_terminal_obeys_is_escaped() -> None:
    assert formatted("a\x1b[2Jb\x07\tc") == "INFO a\\x1b[2Jb\\x07\tc"


def test_half_a_character_can_be_written() -> None:
    assert formatted("a\ud800b").encode() == b"INFO a\\ud800b"


def test_no_line_of_a_trace_can_pass_for_a_record() -> None:
    try:
        raise ValueError(f"what was typed\n{FORGED}")
    except ValueError:
        lines = formatted("It failed", exc_info=sys.exc_info()).splitlines()
    assert lines[0] == "INFO It failed"
    assert any(FORGED in line for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("/invitations/abc-DEF_1/accept/", "/invitations/…/accept/"),
        ("/accounts/password/reset/key/1-abc-def/", "/accounts/password/reset/key/…/"),
        ("/accounts/confirm-email/abc:def/", "/accounts/confirm-email/…/"),
        ("/profile/tokens/0a1b/revoke/", "/profile/tokens/…/revoke/"),
        ("/accounts/signup/?code=abcd-ef&next=/", "/accounts/signup/?code=…&next=/"),
        ("/projects/kite/", "/projects/kite/"),
    ],
)
def test_the_secret_of_an_address_is_left_out(address: Any, written: Any) -> None:
    assert formatted("GET %s: not_found", address) == f"INFO GET {written}: not_found"


def test_a_request_cannot_write_a_line_of_its_own(db: None) -> None:
    kept = io.StringIO()
    handler = logging.StreamHandler(kept)
    handler.setFormatter(LineFormatter(settings.LOGGING["formatters"]["line"]["format"]))
    logging.getLogger().addHandler(handler)
    try:
        Client().get(f"/invitations/abc%0a{FORGED.replace(' ', '%20')}/")
        Client().get(f"/nonesuch/abc%0a{FORGED.replace(' ', '%20')}/")
    finally:
        logging.getLogger().removeHandler(handler)
    assert kept.getvalue()
    assert not [line for line in kept.getvalue().splitlines() if line.startswith(FORGED[:10])]


WRITE = """
import logging
for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task", "celery.worker", "django.request"):
    logging.getLogger(name).error("from %s\\n" + FORGED, name)
"""
LAUNCHERS = {
    "uvicorn": "import uvicorn; uvicorn.Config('webapp.asgi:application').load()",
    "celery": "from webapp.celery import app; app.loader.import_default_modules(); app.log.setup(loglevel='INFO')",
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_servers_and_workers_write_the_same_lines(launcher: Any) -> None:
    program = f"FORGED = {FORGED!r}\nimport django; django.setup()\n{LAUNCHERS[launcher]}\n{WRITE}"
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "webapp.settings"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert len([line for line in lines if "\\n" + FORGED in line]) == 7, done.stderr
    assert not [line for line in lines if line.startswith(FORGED)]
