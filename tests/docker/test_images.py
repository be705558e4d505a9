"""The Dockerfiles copy what exists, start what can be started, and the web image needs nothing that it lacks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from training.contract import ServeSettings
from webapp.home_folder import ROOT
from webapp.supervisor import apps

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
# What runs the embedded servers runs where they are installed.
EMBEDDED = (
    *(f"webapp.supervisor.{name}" for name in ("site", "supervisor", "postgres", "redis", "leftovers")),
    "webapp.home.management.commands.up",
)
BUILD_TOOLS = {"setuptools", "_distutils_hack", "pkg_resources"}
SITE_ONLY = """
import sys
missing = set({missing!r})
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"{{name}} is not in the web image")
sys.meta_path.insert(0, Absent())
import importlib, pkgutil
import webapp.asgi
from webapp.celery import app
app.loader.import_default_modules()
import annotations, webapp
skipped = {embedded}
for package in (webapp, annotations):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in skipped:
            importlib.import_module(module.name)
"""


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", path.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def copied(path: Path) -> set[str]:
    return {source for name, rest in instructions(path) if name == "COPY" for source in rest.split()[:-1]}


def command(path: Path) -> list[str]:
    return json.loads(next(rest for name, rest in instructions(path) if name == "CMD"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed_by_the_site() -> set[str]:
    """The distributions that `pip install .[web]` brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["web"]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = (normal(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            further = [Requirement(line) for line in requires(requirement.name) or []]
        except PackageNotFoundError:
            continue
        extras = requirement.extras or {""}
        waiting += [r for r in further if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)]
    return {name for name, _ in seen}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_what_an_image_copies_is_there(path: Path) -> None:
    assert {source for source in copied(path) if not (ROOT / source).exists()} == set()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_runs_as_nobody_special_on_the_python_that_the_lock_is_for(path: Path) -> None:
    found = dict(instructions(path))
    assert found["USER"] == "tutelage"
    assert found["FROM"].startswith("python:3.11.")
    assert found["VOLUME"] == "/data"
    assert "TUTELAGE_HOME=/data" in found["ENV"]


def test_the_web_image_holds_no_training() -> None:
    assert {source for source in copied(ROOT / "docker" / "web.Dockerfile") if source.startswith("training")} == {
        "training/__init__.py",
        "training/contract",
    }


def test_the_site_imports_nothing_that_the_web_image_lacks() -> None:
    needed = needed_by_the_site()
    assert not {"torch", "transformers", "datasets"} & needed
    missing = sorted(
        module
        for module, distributions in packages_distributions().items()
        if not {normal(name) for name in distributions} & needed
        and module not in ("setuptools", "_distutils_hack", "pkg_resources")
    )
    program = SITE_ONLY.format(missing=missing, embedded=EMBEDDED)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_web_image_answers_on_the_port_that_it_exposes_with_the_sites_application() -> None:
    path = ROOT / "docker" / "web.Dockerfile"
    words = command(path)
    assert words[:2] == ["uvicorn", "webapp.asgi:application"]
    assert words[words.index("--port") + 1] == dict(instructions(path))["EXPOSE"]
    known = subprocess.check_output([sys.executable, "-m", "uvicorn", "--help"], text=True)
    assert {word for word in words if word.startswith("--") and word not in known} == set()


def test_the_training_image_serves_models_as_the_supervisor_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    path = ROOT / "docker" / "training.Dockerfile"
    spec = apps.model_server({}, "http://127.0.0.1:8300", "")
    ours = " ".join(["python", *(str(word) for word in spec.command[1:-1])])
    assert ours in command(path)[-1]
    written = subprocess.check_output(
        [sys.executable, "docker/serve_config.py"],
        cwd=ROOT,
        env=os.environ | {"MODEL_SERVER_TOKEN": "secret", "MODEL_SERVER_KV_GB": "1.5", "MODEL_SERVER_WEIGHTS": "int8"},
    )
    settings = ServeSettings.model_validate_json(written)
    assert (settings.token, settings.kv_cache_gb, settings.weights) == ("secret", 1.5, "int8")
    port = json.loads((ROOT / "docker" / "serve.json").read_text())["port"]
    assert dict(instructions(path))["EXPOSE"] == str(port)
