"""How a child tells the supervisor that it is ready: it touches the file that TUTELAGE_READY_FILE names."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "TUTELAGE_READY_FILE"


def announce_ready(**_: object) -> None:
    if path := os.environ.get(VARIABLE):
        Path(path).touch()
