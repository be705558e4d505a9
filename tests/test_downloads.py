"""Ranges of what lies in a store, as clients ask for them when a connection broke."""

from __future__ import annotations

import io
from collections.abc import Generator
from typing import Any

import pytest
from django.http import HttpResponseBase
from django.test import RequestFactory

from webapp.downloads import Content, StoredFile, send_content

FILE = bytes(range(256)) * 8
CONTENT = Content([b"head", StoredFile(len(FILE), lambda: io.BytesIO(FILE)), b"", b"tail"], "v1")
ALL = b"head" + FILE + b"tail"


def ask(content: Content = CONTENT, method: str = "get", **headers: str) -> HttpResponseBase:
    request = getattr(RequestFactory(), method)("/", headers={k.replace("_", "-"): v for k, v in headers.items()})
    return send_content(request, content, "kite.tar")


def body(response: Any) -> bytes:
    return bytes(response.getvalue())


def test_without_a_range_all_is_sent_with_its_length() -> None:
    response = ask()
    assert response.status_code == 200
    assert body(response) == ALL
    assert response["Content-Length"] == str(len(ALL))
    assert response["Accept-Ranges"] == "bytes"
    assert response["ETag"] == '"v1"'
    assert response["Content-Type"] == "application/x-tar"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-", 0, len(ALL)),
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 6),
        ("bytes=1000-", 1000, len(ALL)),
        ("bytes=100-99999", 100, len(ALL)),
        ("bytes=-3", len(ALL) - 3, len(ALL)),
        ("bytes=-99999", 0, len(ALL)),
    ],
)
def test_a_range_is_sent_as_it_is(asked: str, start: int, stop: int) -> None:
    response = ask(Range=asked)
    assert response.status_code == 206
    assert body(response) == ALL[start:stop]
    assert response["Content-Range"] == f"bytes {start}-{stop - 1}/{len(ALL)}"
    assert response["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("asked", [f"bytes={len(ALL)}-", "bytes=-0", "bytes=99999-100000"])
def test_a_range_behind_the_end_is_refused_with_the_size(asked: str) -> None:
    response = ask(Range=asked)
    assert response.status_code == 416
    assert response["Content-Range"] == f"bytes */{len(ALL)}"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "bytes=²-"])
def test_what_is_no_single_range_gets_all(asked: str) -> None:
    response = ask(Range=asked)
    assert response.status_code == 200
    assert body(response) == ALL


def test_a_range_of_another_version_gets_all_of_this_one() -> None:
    assert ask(Range="bytes=9-", If_Range='"v1"').status_code == 206
    for other in ('"v0"', 'W/"v1"', "Fri, 27 Nov 2026 10:00:00 GMT"):
        response = ask(Range="bytes=9-", If_Range=other)
        assert response.status_code == 200
        assert body(response) == ALL


def test_only_the_length_is_told_of_a_head_request() -> None:
    response = ask(method="head", Range="bytes=9-")
    assert response.status_code == 200
    assert response["Content-Length"] == str(len(ALL))
    assert not response.streaming


def test_a_file_that_became_shorter_ends_the_download_before_its_length() -> None:
    content = Content([StoredFile(10, lambda: io.BytesIO(b"short"))], "v1")
    with pytest.raises(EOFError):
        body(ask(content))


def test_files_before_the_range_are_not_opened() -> None:
    def fail() -> Any:
        raise AssertionError("opened")

    opened: list[int] = []

    def second() -> Any:
        opened.append(1)
        return io.BytesIO(b"second")

    content = Content([StoredFile(5, fail), StoredFile(6, second), StoredFile(9, fail)], "v1")
    pieces: Generator[bytes] = content.pieces(6, 11)
    assert b"".join(pieces) == b"econd"
    assert opened == [1]
