"""The code that the first account needs where the site can be reached from other machines.

It is made from the installation's key, so nothing is stored and every process knows it; it opens nothing once somebody
runs the installation.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.crypto import salted_hmac


def setup_code() -> str:
    """Sixteen hexadecimal digits in groups of four."""
    digits = salted_hmac("webapp.setup_code", "first account", algorithm="sha256").hexdigest()[:16]
    return "-".join(digits[start : start + 4] for start in range(0, 16, 4))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a name other than localhost counts as reachable by others."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_reachable(listen: str = "", site: str = "") -> bool:
    """Whether other machines may reach the site: it listens on more than this machine's own address, stands behind a
    proxy, or answers to another name. The settings say what is not given."""
    hosts = [listen or settings.LISTEN, urlsplit(site or settings.SITE_URL).hostname or "", *settings.ALLOWED_HOSTS]
    return bool(settings.BEHIND_PROXY) or not all(is_loopback(host) for host in hosts if host not in ("", "testserver"))


def first_account_address(listen: str = "", site: str = "") -> str:
    """Where the first account is made; with the code where one is needed."""
    query = f"?code={setup_code()}" if is_reachable(listen, site) else ""
    return f"{(site or settings.SITE_URL).rstrip('/')}/accounts/signup/{query}"
