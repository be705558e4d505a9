"""Bodies that are too large are refused before they are kept, however they come."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from webapp.accounts.models import Project, User
from webapp.data.models import Import

MB = 2**20
SECONDS = 30


def ask(address: tuple[str, int], head: str, parts: Iterator[bytes] | None = None) -> tuple[int, str]:
    """Status and body of one request written byte by byte; the server may answer before all of it is sent."""
    with socket.create_connection(address, timeout=SECONDS) as connection:
        connection.sendall((head.replace("\n", "\r\n") + "\r\n\r\n").encode())
        try:
            for part in parts or ():
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered and closed
        received = b""
        while b"\r\n\r\n" not in received or len(received) < length_of(received):
            try:
                part = connection.recv(65_536)
            except ConnectionResetError:
                break
            if not part:
                break
            received += part
    start, _, body = received.partition(b"\r\n\r\n")
    return int(start.split()[1]), body.decode()


def length_of(received: bytes) -> int:
    head = received.partition(b"\r\n\r\n")[0]
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
    return len(head) + 4 + length


def chunks(total: int, size: int = 64 * 1024) -> Iterator[bytes]:
    for _ in range(total // size):
        yield b"%x\r\n" % size + b"x" * size + b"\r\n"
    yield b"0\r\n\r\n"


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes Django has kept of bodies."""
    from django.core.handlers.asgi import ASGIHandler

    kept: list[int] = []
    plain = ASGIHandler.read_body

    async def noting(self: Any, receive: Any) -> Any:
        file = await plain(self, receive)
        kept.append(file.seek(0, 2))
        file.seek(0)
        return file

    monkeypatch.setattr(ASGIHandler, "read_body", noting)
    return kept


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/nonesuch/", "/projects/kite/data/import/"])
def test_a_body_that_declares_too_much_is_refused_at_once(
    address: Any, spooled: Any, project: Project, path: Any
) -> None:
    status, body = ask(address, f"POST {path} HTTP/1.1\nHost: localhost\nContent-Length: {400 * MB}")
    assert (status, spooled) == (413, [])
    assert "At most 10 MB" in body


def test_the_api_says_so_in_json(address: Any, spooled: Any) -> None:
    head = f"HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {11 * MB}"
    status, body = ask(address, f"POST /api/v1/projects/kite/prompts/ {head}")
    assert (status, json.loads(body)["code"]) == (413, "too_large")
    status, body = ask(address, f"POST /v1/chat/completions {head}")
    assert (status, json.loads(body)["error"]["code"]) == (413, "request_too_large")
    assert spooled == []


def test_every_door_has_one_limit_and_says_it_in_one_sentence(address: Any, project: Project) -> None:
    head = f"HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {12 * MB}"
    for path in ("/accounts/login/", "/api/v1/projects/kite/prompts/", "/v1/chat/completions"):
        assert "This is too large. At most 10 MB can be sent here." in ask(address, f"POST {path} {head}")[1]


def test_a_file_that_is_too_large_is_told_the_limit_of_files(address: Any, project: Project, mo: User) -> None:
    client = Client()
    client.force_login(mo)
    head = f"HTTP/1.1\nHost: localhost\nCookie: sessionid={client.cookies['sessionid'].value}"
    status, body = ask(address, f"POST /projects/kite/data/import/ {head}\nContent-Length: {600 * MB}")
    assert (status, "At most 512 MB can be sent here." in body) == (413, True)


def test_a_body_that_streams_too_much_is_cut_off(address: Any, spooled: Any) -> None:
    head = "POST /accounts/login/ HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked"
    assert ask(address, head, chunks(64 * MB))[0] == 413
    assert spooled == []


def test_a_short_length_before_a_long_body_is_no_way_round(address: Any, spooled: Any) -> None:
    head = "POST /accounts/login/ HTTP/1.1\nHost: localhost\nContent-Length: 10"
    status, _ = ask(address, head, (b"x" * 64 * 1024 for _ in range(320)))
    assert status in (400, 403)
    assert sum(spooled) <= 10


def test_two_lengths_that_differ_are_no_way_round(address: Any, spooled: Any) -> None:
    head = "POST / HTTP/1.1\nHost: localhost\nContent-Length: 10\nTransfer-Encoding: chunked"
    status, _ = ask(address, head, chunks(32 * MB))
    assert status in (400, 413)
    assert sum(spooled) <= settings.MAX_BODY_BYTES


def test_a_small_body_passes_however_it_comes(address: Any, spooled: Any, project: Project) -> None:
    head = "POST /accounts/login/ HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked"
    assert ask(address, head, chunks(1 * MB))[0] == 403  # no CSRF token, so Django has read it
    assert spooled == [1 * MB]


def upload(person: User, address: tuple[str, int], size: int) -> int:
    """The status of an import of that size by a person, as a browser sends it."""
    client = Client()
    client.force_login(person)
    client.get("/projects/kite/data/import/")
    token = "t" * 32
    fields = {"csrfmiddlewaretoken": token, "kind": "", "corpus": "Big", "licence": ""}
    line = b'{"text": "' + b"word " * 200 + b'"}\n'
    before = "".join(
        f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    before += '--XX\r\nContent-Disposition: form-data; name="file"; filename="big.jsonl"\r\n\r\n'
    rows = size // len(line)
    length = len(before) + rows * len(line) + len("\r\n--XX--\r\n")
    cookie = f"sessionid={client.cookies['sessionid'].value}; csrftoken={token}"
    head = (
        f"POST /projects/kite/data/import/ HTTP/1.1\nHost: localhost\nCookie: {cookie}\n"
        f"Content-Type: multipart/form-data; boundary=XX\nContent-Length: {length}"
    )

    def parts() -> Iterator[bytes]:
        yield before.encode()
        for _ in range(rows):
            yield line
        yield b"\r\n--XX--\r\n"

    return ask(address, head, parts())[0]


def test_who_may_import_may_send_a_large_file_there(address: Any, project: Project, mo: User) -> None:
    assert upload(mo, address, 12 * MB) == 302
    assert Import.objects.get().file.size > 11 * MB


def test_who_may_not_import_may_not(address: Any, spooled: Any, project: Project, ann: User, stranger: User) -> None:
    assert upload(ann, address, 12 * MB) == 413
    assert upload(stranger, address, 12 * MB) == 413
    assert spooled == []


def test_a_connection_goes_on_after_a_refusal(address: Any) -> None:
    with socket.create_connection(address, timeout=SECONDS) as connection:
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {11 * MB}\r\n\r\n"
        connection.sendall(head.encode())
        connection.sendall(b"x" * 11 * MB)
        connection.sendall(b"GET /accounts/signup/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answers = b""
        while part := connection.recv(65_536):
            answers += part
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"413", b"200"]
