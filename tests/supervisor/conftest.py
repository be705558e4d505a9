"""A home of its own for each test, without the servers that the rest of the tests use."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from webapp.supervisor.child import Spec
from webapp.supervisor.folder import prepare_home

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def same_umask_after() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATABASE_URL", "REDIS_URL", "MODEL_SERVER_URL", "SITE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    prepare_home()
    return tmp_path / "home"


def python(name: str, program: str, **settings: Any) -> Spec:
    return Spec(name=name, command=[sys.executable, "-c", program], environment={}, **settings)


def until(condition: Callable[[], object]) -> None:
    """Wait for it, not for a time; fails after a patience that only a broken condition uses up."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
