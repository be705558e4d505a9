"""Addresses that people type must not reach what only this machine can reach."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from django.conf import LazySettings

from webapp.errors import BadInput
from webapp.judges.guarding import GuardedTransport, checked_address, is_public


@pytest.mark.parametrize(
    "ip",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1", "fc00::1",
     "fe80::1%1", "::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"],
)  # fmt: skip
def test_addresses_inside_are_not_public(ip: str) -> None:
    assert not is_public(ip)


def test_addresses_outside_are_public() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2606:4700:4700::1111")
    assert is_public("::ffff:8.8.8.8")


@pytest.mark.parametrize(
    "address",
    ["http://example.org/v1", "https://127.0.0.1/v1", "https://[::1]/v1", "https://169.254.169.254/latest",
     "ftp://x/v1", "file:///etc/passwd", "https://me:secret@example.org/v1", "https://example.org/v1?key=x",
     "https://", "example.org", "https://example.org:99999/v1", "https://[::1"],
)  # fmt: skip
def test_such_addresses_are_refused_with_a_sentence(address: str) -> None:
    with pytest.raises(BadInput) as refused:
        checked_address(address)
    assert refused.value.data["field"] == "address"


def test_the_operator_can_allow_a_host(settings: LazySettings) -> None:
    settings.JUDGE_HOSTS = ["10.0.0.5:8000", "gpu-box"]
    assert checked_address("http://10.0.0.5:8000/v1/") == "http://10.0.0.5:8000/v1"
    assert checked_address("http://gpu-box:1234/v1/chat/completions") == "http://gpu-box:1234/v1"
    with pytest.raises(BadInput):
        checked_address("http://10.0.0.5:8001/v1")


def test_a_public_name_that_stands_for_an_inside_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a name is pointed elsewhere after it was checked."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        port = inside.getsockname()[1]
        inside.settimeout(0.2)

        def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
            assert host == "judge.example.org"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with (
            httpx.Client(transport=GuardedTransport(1), trust_env=False) as client,
            pytest.raises(httpx.ConnectError, match="no public address"),
        ):
            client.get(f"https://judge.example.org:{port}/")
        with pytest.raises(TimeoutError):
            inside.accept()
