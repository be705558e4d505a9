"""Styles and scripts, as browsers get and keep them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.test import Client
from django.utils.functional import empty

pytestmark = pytest.mark.django_db
SCRIPT = re.compile(r'src="(/static/js/site\.[0-9a-f]{12}\.js)"')


@pytest.fixture
def prepared(settings: LazySettings, tmp_path: Path) -> Iterator[Path]:
    """A site whose files `manage.py prepare` has collected."""
    settings.STATIC_ROOT = tmp_path / "static"
    call_command("prepare")
    yield tmp_path / "static"
    staticfiles_storage._wrapped = empty


def test_a_script_is_kept_for_good_under_a_name_of_its_content(prepared: Path, client: Client, root: object) -> None:
    (address,) = SCRIPT.findall(client.get("/accounts/login/").content.decode())
    answer = client.get(address)
    assert answer.status_code == 200
    assert "immutable" in answer["Cache-Control"]
    assert b"".join(answer.streaming_content) == (prepared / "js" / "site.js").read_bytes()


def test_files_that_nobody_collected_keep_their_names(client: Client, root: object) -> None:
    assert 'src="/static/js/site.js"' in client.get("/accounts/login/").content.decode()
    assert client.get("/static/js/site.js").status_code == 200


def test_collected_files_are_private_like_the_rest_of_the_data_folder(prepared: Path, root: object) -> None:
    collected = [prepared, *prepared.rglob("*")]
    assert len(collected) > 10
    assert [path for path in collected if path.stat().st_mode & 0o077] == []
