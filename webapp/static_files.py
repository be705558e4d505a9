"""Static files: under names with a hash of their content, so that no browser runs a script of an earlier version, and
straight from installed packages, so that no copy of their scripts is in the repository."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from django.contrib.staticfiles.finders import BaseFinder
from django.contrib.staticfiles.storage import HashedFilesMixin
from django.core.files.storage import FileSystemStorage, Storage
from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """`manage.py prepare` collects the files and their names. Until it has run, as in tests, they keep their own."""

    # Modules import each other by these names too. Only ours: in the bundles of packages the search takes a second.
    support_js_module_import_aggregation = True
    _js_module_import_aggregation_patterns = (
        "js/*.js",
        HashedFilesMixin._js_module_import_aggregation_patterns[1],  # type: ignore[attr-defined]  # Django's stubs lack it
    )
    # A module's name follows from the names of what it imports, so Django names them again until no name changes: at
    # worst once per module in the longest chain of imports. Modules that import each other would never be done.
    max_post_process_passes = 20

    def stored_name(self, name: str) -> str:
        return str(super().stored_name(name)) if self.hashed_files else name

    def hashed_name(self, name: str, content: Any = None, filename: str | None = None) -> str:
        """The name as it is for files that a script names and that we do not have, such as source maps."""
        if content is None and not self.exists(filename or name):
            return name
        return str(super().hashed_name(name, content, filename))


# The files that pages load, and where they are: address: (package, folder in it, names)
PACKAGE_FILES: Final = {
    "bokeh": ("bokeh", "server/static/js", ("bokeh.min.js", "bokeh-api.min.js")),
    "swagger-ui": (
        "drf_spectacular_sidecar",
        "static/drf_spectacular_sidecar/swagger-ui-dist",
        ("swagger-ui-bundle.js", "swagger-ui.css"),
    ),
}


class PackageFilesFinder(BaseFinder):
    """Serves PACKAGE_FILES, and nothing else of those packages: what is collected is compressed, which takes time."""

    def check(self, **kwargs: Any) -> list[Any]:  # noqa: ARG002 (Django's signature)
        return []

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:  # noqa: ARG002 (Django's signature)
        prefix, _, name = path.rpartition("/")
        package, subfolder, names = PACKAGE_FILES.get(prefix, ("", "", ()))
        file = str(package_folder(package) / subfolder / name) if name in names else None
        if find_all:
            return [file] if file else []
        return file or []

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, Storage]]:  # noqa: ARG002 (Django's)
        for prefix, (package, subfolder, names) in PACKAGE_FILES.items():
            storage = FileSystemStorage(location=package_folder(package) / subfolder)
            storage.prefix = prefix  # type: ignore[attr-defined]  # collectstatic puts the files under it
            for name in names:
                yield name, storage


def package_folder(package: str) -> Path:
    """Found without importing the package: Bokeh takes a second."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))
