"""Styles and scripts, as browsers get and keep them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.test import Client
from django.utils.functional import empty

from webapp.home_folder import ROOT

pytestmark = pytest.mark.django_db
SCRIPT = re.compile(r'src="(/static/js/loaded\.[0-9a-f]{12}\.js)"')
IMPORT = re.compile(r'^(?:import|export)\b.*?from "\./(.*?)";', re.MULTILINE | re.DOTALL)


@pytest.fixture
def prepared(settings: LazySettings, tmp_path: Path) -> Iterator[Path]:
    """A site whose files `manage.py prepare` has collected."""
    settings.STATIC_ROOT = tmp_path / "static"
    call_command("prepare")
    yield tmp_path / "static"
    staticfiles_storage._wrapped = empty  # type: ignore[attr-defined]


def test_a_script_is_kept_for_good_under_a_name_of_its_content(prepared: Path, client: Client, root: object) -> None:
    (address,) = SCRIPT.findall(client.get("/accounts/login/").content.decode())
    answer = client.get(address)
    assert answer.status_code == 200
    assert "immutable" in answer["Cache-Control"]
    assert answer.getvalue() == (prepared / "js" / "loaded.js").read_bytes()


def test_files_that_nobody_collected_keep_their_names(client: Client, root: object) -> None:
    assert 'src="/static/js/site.js"' in client.get("/accounts/login/").content.decode()
    assert client.get("/static/js/site.js").status_code == 200


def test_collected_files_are_private_like_the_rest_of_the_data_folder(prepared: Path, root: object) -> None:
    collected = [prepared, *prepared.rglob("*")]
    assert len(collected) > 10
    assert [path for path in collected if path.stat().st_mode & 0o077] == []


def collected_names(static_root: Path) -> dict[str, str]:
    """The hashed name of every file, as pages take it."""
    names: dict[str, str] = json.loads((static_root / "staticfiles.json").read_text())["paths"]
    return names


def test_modules_import_each_other_by_the_names_that_pages_use(prepared: Path, root: object) -> None:
    names = collected_names(prepared)
    imports = 0
    for name, hashed_name in names.items():
        if name.startswith("js/"):
            written = IMPORT.findall((ROOT / "static" / name).read_text())
            served = IMPORT.findall((prepared / hashed_name).read_text())
            # under two names a module would run twice
            assert [f"js/{imported}" for imported in served] == [names[f"js/{imported}"] for imported in written], name
            imports += len(served)
    assert imports > 50


def test_a_module_has_a_new_name_when_what_it_imports_changes(settings: LazySettings, tmp_path: Path) -> None:
    """Else a browser that keeps the importing module for good would go on with the old one after an upgrade."""
    modules = tmp_path / "source" / "js"
    modules.mkdir(parents=True)
    (modules / "page.js").write_text('import { showToast } from "./part.js";\nshowToast();\n')
    (modules / "part.js").write_text('export { showToast } from "./toast.js";\n')
    settings.STATICFILES_DIRS = [tmp_path / "source"]
    addresses = []
    for version in ("1", "2"):
        (modules / "toast.js").write_text(f"export function showToast() {{ console.log({version}); }}\n")
        settings.STATIC_ROOT = tmp_path / version
        call_command("collectstatic", interactive=False, verbosity=0)
        addresses.append(collected_names(tmp_path / version)["js/page.js"])
    assert addresses[0] != addresses[1]


def test_scripts_of_packages_are_served_as_they_are(prepared: Path, root: object) -> None:
    for name in ("django_htmx/htmx-2.min.js", "bokeh/bokeh.min.js", "swagger-ui/swagger-ui-bundle.js"):
        assert (prepared / collected_names(prepared)[name]).read_bytes() == (prepared / name).read_bytes()
