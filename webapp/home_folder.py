"""The one folder in which an installation keeps its data, and what it says of the servers that run over it."""

from __future__ import annotations

import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """TUTELAGE_HOME, or `var/` beside the code."""
    return Path(os.environ.get("TUTELAGE_HOME") or ROOT / "var").resolve()


def endpoints_file() -> Path:
    """Where the supervisor writes the addresses of the servers it runs, while it runs them."""
    return home() / "run" / "endpoints.json"


def endpoint(name: str, default: str = "") -> str:
    """DATABASE_URL, REDIS_URL, MODEL_SERVER_URL or SITE_URL: from the environment, else from a running supervisor."""
    if value := os.environ.get(name):
        return value
    try:
        return str(json.loads(endpoints_file().read_text()).get(name, default))
    except (FileNotFoundError, json.JSONDecodeError):
        return default
