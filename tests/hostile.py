"""Input that breaks programs which do not expect it, and the addresses and parameters of the site to try it at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.http import QueryDict
from django.test import Client

# The few that broke most, tried at every `make test`; then all of them, for `make test-all`.
WORST = {
    "NUL": "\x00",
    "superscript": "²",
    "not a number": "x",
    "beyond bigint": str(2**63),
    "5000 digits": "9" * 5000,
}
VALUES = {
    **WORST,
    "NUL inside": "a\x00b",
    "negative": "-1",
    "fraction": "1.5",
    "beyond int": str(2**31),
    "half a character": "\ud800",
    "markup": "<script>alert(1)</script>'\"",
    "format": "%s{0}{{7*7}}",
    "time": "0001-01-01T00:00:00+14:00",
    "empty": "",
}
JSON_VALUES: dict[str, str] = {
    "NUL": '"a\\u0000b"',
    "half a character": '"\\ud800"',
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "1e999": "1e999",
    "beyond bigint": str(2**63),
    "negative": "-1",
    "5000 digits": "9" * 5000,
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "rather deep": "[" * 900 + "]" * 900,
    "null": "null",
    "list": "[1]",
    "list of lists": "[[1]]",
    "object": '{"a": 1}',
    "object with a hostile key": '{"²": 1, "\\u0000": 2}',
    "superscript": '"²"',
    "true": "true",
    "text": '"x"',
    "long": '"' + "x" * 200_000 + '"',
}
BODIES: dict[str, bytes] = {
    **{name: value.encode() for name, value in JSON_VALUES.items()},
    "nothing": b"",
    "broken": b'{"a": ',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "NUL byte": b'{"name": "\x00"}',
    "duplicate keys": b'{"name": "a", "name": 3}',
}
CONTENT_TYPES = ["text/plain", "application/xml", "multipart/form-data", "multipart/form-data; boundary=", "x", "",
                 "application/json; charset=bz2_codec", "application/json; charset=nonesuch"]  # fmt: skip


def in_address(value: str) -> str:
    """Percent-encoded, a half character as the bytes that stand for it nowhere."""
    return quote(value.encode("utf-8", "surrogatepass"), safe="")


def note_names(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """The names that views have looked up in an address or a form since it was called last."""
    names: set[str] = set()

    def spy(method: str) -> None:
        plain = getattr(QueryDict, method)

        def noting(self: QueryDict, key: str, *rest: Any) -> Any:
            names.add(key)
            return plain(self, key, *rest)

        monkeypatch.setattr(QueryDict, method, noting)

    for method in ("get", "__getitem__", "getlist", "__contains__", "pop"):
        spy(method)

    def take() -> set[str]:
        taken = set(names)
        names.clear()
        return taken

    return take


def failures(answers: Iterator[tuple[str, Any]]) -> list[str]:
    """What answered with a fault of the server, or with HTML where an API was asked."""
    wrong = []
    for asked, response in answers:
        address = response.request.get("PATH_INFO", "")
        kind = response.headers.get("Content-Type", "")
        if response.status_code >= 500 and response.status_code != 503:  # 503: no model server runs here
            wrong.append(f"{response.status_code} at {asked}")
        elif response.status_code >= 400 and address.startswith(("/api/", "/v1/")) and "json" not in kind:
            wrong.append(f"{kind} at {asked}")
    return wrong


def client_for(person: Any) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(person)
    return client
