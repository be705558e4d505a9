"""Serves BokehJS from the installed wheel as bokeh/…, so that no copy of it is in the repository."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage, Storage

SCRIPTS = ("bokeh.min.js", "bokeh-api.min.js")
PREFIX = "bokeh"


def scripts_folder() -> Path:
    """Found without importing Bokeh, which takes a second."""
    spec = importlib.util.find_spec("bokeh")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("bokeh is not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))) / "server" / "static" / "js"


class BokehFinder(BaseFinder):
    def check(self, **kwargs: Any) -> list[Any]:  # noqa: ARG002 (Django's signature)
        return []

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:  # noqa: ARG002 (Django's signature)
        folder, _, name = path.rpartition("/")
        script = str(scripts_folder() / name) if folder == PREFIX and name in SCRIPTS else None
        if find_all:
            return [script] if script else []
        return script or []

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterable[tuple[str, Storage]]:  # noqa: ARG002 (Django's signature)
        storage = FileSystemStorage(location=scripts_folder())
        storage.prefix = PREFIX  # type: ignore[attr-defined]  # collectstatic puts the files under it
        for name in SCRIPTS:
            yield name, storage
