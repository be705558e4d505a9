"""The one folder in which an installation keeps its data, and what it says of the servers that run over it."""

from __future__ import annotations

import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_home() -> Path:
    """TUTELAGE_HOME, or `var/` in a checkout; for an installed package, `tutelage/` in the person's home folder."""
    default = ROOT / "var" if (ROOT / "pyproject.toml").exists() else Path.home() / "tutelage"
    return Path(os.environ.get("TUTELAGE_HOME") or default).resolve()


def keep_private() -> None:
    """From here on this process and those that it starts make files that only their owner reads."""
    os.umask(0o077)


def endpoints_file() -> Path:
    """Where the supervisor writes the addresses of the servers it runs, while it runs them."""
    return data_home() / "run" / "endpoints.json"


def service_url(name: str, default: str = "") -> str:
    """DATABASE_URL, REDIS_URL, MODEL_SERVER_URL or SITE_URL: from the environment, else from a running supervisor."""
    return os.environ.get(name) or read_endpoints().get(name, default)


def read_endpoints() -> dict[str, str]:
    """The addresses of the servers that run over this folder. A copied folder has a copy of the file, which names the
    servers of the original and counts for nothing here."""
    try:
        addresses = dict(json.loads(endpoints_file().read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return addresses if addresses.pop("TUTELAGE_HOME", "") == str(data_home()) else {}
