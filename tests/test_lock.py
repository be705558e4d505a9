"""The lock files pin every package by its hashes, and agree with each other and with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from webapp.home_folder import ROOT

LOCKS = sorted(ROOT.glob("requirements*.lock"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(lock: Path) -> dict[str, str]:
    """The text of each entry by the package's name."""
    texts = [text for text in re.split(r"\n(?=\S)", lock.read_text()) if not text.startswith("#")]
    return {canonicalize_name(text.partition("==")[0]): text.strip() for text in texts}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_has_a_version_and_hashes(lock: Path) -> None:
    assert {name: text for name, text in entries(lock).items() if "==" not in text or not HASH.search(text)} == {}


def test_there_is_a_lock_for_everything_for_the_site_and_for_each_build_of_torch() -> None:
    assert [lock.stem for lock in LOCKS] == [
        "requirements-cpu", "requirements-cuda", "requirements-web", "requirements",
    ]  # fmt: skip


def test_what_we_import_is_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {
        name: lines for name, lines in project["optional-dependencies"].items() if name not in ("tracking", "quantized")
    }
    named = [line for lines in locked.values() for line in lines] + project["dependencies"]
    pinned = entries(ROOT / "requirements.lock")
    for requirement in map(Requirement, named):
        version = pinned[canonicalize_name(requirement.name)].partition("==")[2].split()[0]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_site_s_lock_is_a_part_of_the_whole_without_torch() -> None:
    whole, site = entries(ROOT / "requirements.lock"), entries(ROOT / "requirements-web.lock")
    assert site.items() <= whole.items()
    assert not {"torch", "transformers", "datasets", "pytest"} & site.keys()


def test_each_build_of_torch_is_of_the_same_version() -> None:
    whole, cpu = entries(ROOT / "requirements.lock"), entries(ROOT / "requirements-cpu.lock")
    version = whole["torch"].split()[0]
    assert cpu["torch"].split()[0] == f"{version}+cpu"
    assert not entries(ROOT / "requirements-cuda.lock").keys() & whole.keys()
