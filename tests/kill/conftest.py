"""One whole site for all of these tests, with a sample project that has been once around the loop."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kill.whole import Visitor, Whole
from webapp.home_folder import ROOT

DEMO_SECONDS = 1200


class Sample(NamedTuple):
    admin: tuple[str, str]
    annotator: tuple[str, str]
    user: tuple[str, str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    site = Whole(tmp_path_factory.mktemp("whole") / "home")
    site.start()
    yield site
    assert site.stop() == 0, site.said()


@pytest.fixture(scope="session")
def sample(whole: Whole) -> Sample:
    """The people of the sample project, with their passwords."""
    made = subprocess.run(
        [sys.executable, "manage.py", "demo", "--size", "quick"],
        cwd=ROOT,
        env=whole.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_SECONDS,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    found = {
        role: (email, password)
        for role, email, password in re.findall(r"sample (\w+): (\S+)  password (\S+)", made.stdout)
    }
    return Sample(**found)


@pytest.fixture
def annotator(whole: Whole, sample: Sample) -> Iterator[Visitor]:
    visitor = whole.visitor(*sample.annotator)
    yield visitor
    visitor.http.close()


@pytest.fixture
def user(whole: Whole, sample: Sample) -> Iterator[Visitor]:
    visitor = whole.visitor(*sample.user)
    yield visitor
    visitor.http.close()
