"""The people and the project that tests speak of: ada owns it, mo manages it, ann and ben label, tess tries it out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings

from tests import factories
from webapp.accounts.models import Project, Role, User


def pytest_configure(config: pytest.Config) -> None:
    from django.conf import settings

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.MODEL_SERVER_URL = "http://127.0.0.1:9"  # nothing answers there; a test that needs a server starts one


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which code no test ran, since the suite passes without it."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "AMX" in str(report.longrepr)]
    if skipped:
        terminalreporter.section("attention on AMX was not tested", sep="!", red=True)
        terminalreporter.line(
            f"{len(skipped)} tests need a processor with AMX (amx_bf16 in /proc/cpuinfo) and a compiler."
        )
        terminalreporter.line(
            "Before you change training/kernels/amx, run them on a cloud Xeon (Sapphire Rapids or newer)."
        )


@pytest.fixture
def data_folders(settings: LazySettings, tmp_path: Path) -> Path:
    """An artefact store, and folders for runs and for what people send, of the test's own."""
    storage = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": tmp_path / "uploads"},
    }
    settings.STORAGES = settings.STORAGES | {"default": storage}
    settings.ARTEFACTS_URL = f"file://{tmp_path}/artefacts"
    settings.RUNS_FOLDER = tmp_path / "runs"
    return tmp_path


@pytest.fixture
def root(db: None) -> User:
    """Whoever runs the installation."""
    return factories.person("root", is_superuser=True, is_staff=True)


@pytest.fixture
def ada(db: None) -> User:
    return factories.person("Ada")


@pytest.fixture
def project(ada: User) -> Project:
    return factories.project(ada, "Kite", slug="kite")


@pytest.fixture
def mo(project: Project) -> User:
    return factories.member(project, factories.person("Mo"), Role.MANAGER).user


@pytest.fixture
def ann(project: Project) -> User:
    return factories.member(project, factories.person("Ann"), Role.ANNOTATOR).user


@pytest.fixture
def ben(project: Project) -> User:
    return factories.member(project, factories.person("Ben"), Role.ANNOTATOR).user


@pytest.fixture
def tess(project: Project) -> User:
    return factories.member(project, factories.person("Tess"), Role.TESTER).user


@pytest.fixture
def stranger(db: None) -> User:
    """Has an account and belongs to no project."""
    return factories.person("Stranger")


@pytest.fixture
def rows(project: Project, ann: User, ben: User, tess: User) -> dict[str, tuple[Any, str]]:
    """What stands behind each parameter of an address; see `rows_behind`."""
    from tests.addresses import rows_behind

    return rows_behind(project, ann, ben, tess)


@pytest.fixture
def names_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """The names that views have looked up in an address or a form since it was called last."""
    from tests.hostile import note_names

    return note_names(monkeypatch)
