"""Nothing that Tutelage, which is under Apache-2.0, needs to run is under the GPL or AGPL."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from webapp.home_folder import ROOT

EXTRAS = ("web", "embedded", "train")
# Packages that give a choice with GPL in it, and what we take.
CHOSEN = {"tld": "MPL-1.1, of MPL-1.1, GPL-2.0-only and LGPL-2.1-or-later"}
# Packages that state no license, and why that is no matter.
UNSTATED = {"cuda-toolkit": "is empty, and only names NVIDIA's libraries, which state theirs"}
REFUSED = re.compile(r"(?<![A-Za-z])A?GPL|GNU (Affero )?General Public|Affero", re.IGNORECASE)
EXCEPTION = re.compile(r"WITH [\w.-]*exception", re.IGNORECASE)  # as of GCC's run-time libraries


def refused(stated: str) -> bool:
    """Whether a license, or a part of an SPDX expression that cannot be avoided, is GPL or AGPL."""
    return all(
        any(REFUSED.search(part) and not EXCEPTION.search(part) for part in re.split(r"\bAND\b", choice))
        for choice in re.split(r"\bOR\b", stated)
    )


def licenses_of(found: Distribution) -> list[str]:
    """What a distribution says of its license: an expression, else a word of its own and the classifiers."""
    about = found.metadata
    if expression := about.get("License-Expression"):  # type: ignore[attr-defined]
        return [expression]
    lines = (about.get("License") or "").strip().splitlines()[:1]  # type: ignore[attr-defined]  # some put the whole text there
    return lines + [value for value in about.get_all("Classifier", []) if value.startswith("License ::")]


def needed() -> Iterator[Distribution]:
    """Every installed distribution that the extras of a running site need, and what those need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    open_ends = [Requirement(line) for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    open_ends += [Requirement(line) for line in project["dependencies"]]
    seen: set[tuple[str, frozenset[str]]] = set()
    given: set[str] = set()
    while open_ends:
        requirement = open_ends.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found = distribution(name)
        for line in found.requires or []:
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                open_ends.append(inner)
        if name not in given:
            given.add(name)
            yield found


def test_nothing_needed_to_run_is_under_the_gpl() -> None:
    found = {canonicalize_name(each.name): licenses_of(each) for each in needed()}
    assert len(found) > 80, "the closure is looked at, not only the names in pyproject.toml"
    assert {name for name, stated in found.items() if not stated} <= set(UNSTATED), "they state none"
    assert {name: stated for name, stated in found.items() if any(map(refused, stated))} == {}


def test_every_choice_with_gpl_in_it_was_made_on_purpose() -> None:
    choices = {canonicalize_name(each.name) for each in needed() if any(map(REFUSED.search, licenses_of(each)))}
    assert choices == set(CHOSEN)


@pytest.mark.parametrize(
    "stated",
    [
        "GPL-3.0-or-later", "AGPL-3.0-only", "MIT AND GPL-2.0-only", "GNU General Public License v3 (GPLv3)", "GPL",
        "License :: OSI Approved :: GNU Affero General Public License v3", "AGPL-3.0-only OR GPL-3.0-only",
    ],
)  # fmt: skip
def test_gpl_and_agpl_are_refused(stated: str) -> None:
    assert refused(stated)


@pytest.mark.parametrize(
    "stated",
    [
        "MIT", "LGPL-3.0-only", "MPL-2.0", "MPL-1.1 OR GPL-2.0-only OR LGPL-2.1-or-later",
        "License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)",
        "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1",
    ],
)  # fmt: skip
def test_other_licenses_and_choices_are_taken(stated: str) -> None:
    assert not refused(stated)
