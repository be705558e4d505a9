"""Requests to addresses that people typed in, which must not reach what only this machine or its network can reach.

A person who may add a judge could otherwise have the site ask the database, a cloud's metadata service or another
project's model, and read the answer (server-side request forgery). So:

- https only, and every IP address that the host's name stands for must be public. The check is made for the connection
  itself, so a name that changes its meaning in between (DNS rebinding) gains nothing.
- Hosts that the operator lists in JUDGE_HOSTS (host or host:port) are free of both rules: a server in the same network.
- Redirects are not followed, and proxies that the environment names are not used.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore
import httpx
from django.conf import settings

from webapp.errors import BadInput
from webapp.model_server.connection import tls

PORTS: Final = {"http": 80, "https": 443}
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def checked_address(address: str) -> str:
    """The address without a slash at its end. Raises BadInput for one that may not be asked, as far as it says itself:
    what its host's name stands for is checked with each connection."""
    address = address.strip().rstrip("/").removesuffix("/chat/completions")
    try:
        url = urlsplit(address)
        port = url.port or PORTS.get(url.scheme, 0)
    except ValueError as error:
        raise BadInput("This is no address. Give one such as https://api.openai.com/v1.", field="address") from error
    host = (url.hostname or "").lower()
    if url.scheme not in PORTS or not host:
        raise BadInput("Give an address such as https://api.openai.com/v1.", field="address")
    if url.username or url.password or url.query or url.fragment:
        raise BadInput("Give the address alone; the key has a field of its own.", field="address")
    if is_allowed(host, port):
        return address
    if url.scheme != "https":
        raise BadInput(
            f"{host} must be asked over https. For a server in your own network, whoever runs this installation can "
            f"list {host}:{port} in JUDGE_HOSTS.",
            field="address",
        )
    if is_literal(host) and not is_public(host):
        raise BadInput(not_public(host, port), field="address")
    return address


def is_allowed(host: str, port: int) -> bool:
    """Whether the operator lists it."""
    names = {name.strip().lower() for name in settings.JUDGE_HOSTS}
    return bool({host.lower(), f"{host.lower()}:{port}"} & names)


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(ip: str) -> bool:
    """Whether it is an address of the public internet. Those of IPv6 that stand for one of IPv4 elsewhere (6to4,
    Teredo, NAT64) are not."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public(str(address.ipv4_mapped))
        if address.sixtofour or address.teredo or address in NAT64:
            return False
    return address.is_global and not address.is_multicast


def not_public(host: str, port: int) -> str:
    return (
        f"{host} is no public address, so the site does not ask it. For a server in your own network, whoever runs "
        f"this installation can list {host}:{port} in JUDGE_HOSTS."
    )


class NotPublic(httpcore.ConnectError):
    """The host's name stands for an address that may not be asked."""


class GuardedBackend(httpcore.SyncBackend):
    """Connects to the address that was checked, so that the name is looked up once."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        if is_allowed(host, port):
            return super().connect_tcp(host, port, timeout, local_address, socket_options)
        try:
            names = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be found") from error
        ips = [str(name[4][0]) for name in names]
        if not ips or not all(map(is_public, ips)):
            raise NotPublic(not_public(host, port))
        return super().connect_tcp(ips[0], port, timeout, local_address, socket_options)


class GuardedTransport(httpx.HTTPTransport):
    """httpx has no public way to give its pool a network backend, so the pool is replaced."""

    def __init__(self, connections: int) -> None:
        super().__init__(verify=tls(), trust_env=False)
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls(), max_connections=connections, network_backend=GuardedBackend()
        )
