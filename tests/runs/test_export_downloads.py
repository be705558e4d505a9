"""Exports as they are taken away: one archive or single files, from any byte on."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests import factories
from webapp.accounts.models import Project, User
from webapp.archives import tar_parts
from webapp.downloads import Content, StoredFile
from webapp.registry.artefacts import open_store
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db
FILES = {"model.safetensors": os.urandom(3_000_000), "config.json": b"{}", "README.md": b"# Kite\n"}


@pytest.fixture(autouse=True)
def store(settings: Any, tmp_path: Path) -> Path:
    settings.ARTEFACTS_URL = f"file://{tmp_path}/artefacts"
    return tmp_path / "artefacts"


@pytest.fixture
def exported(project: Project) -> Run:
    return factories.export_run(project, FILES)


@pytest.fixture
def address(client: Client, ada: User, exported: Run) -> str:
    client.force_login(ada)
    return reverse("export_archive", args=[exported.pk])


def path_of(run: Run, name: str) -> Path:
    return Path(open_store(run.outputs[name])[1])


def test_the_archive_holds_every_file_and_their_hashes(client: Client, address: str, exported: Run) -> None:
    page = client.get(reverse("run_detail", args=[exported.pk])).text
    assert address in page
    assert "2.9 MB" in page.replace("\xa0", " ")
    answer = client.get(address)
    archive = answer.getvalue()
    assert answer["Content-Length"] == str(len(archive))
    assert exported.base is not None
    folder = f"kite-{exported.base.number}-bf16"
    assert answer["Content-Disposition"] == f'attachment; filename="{folder}.tar"'
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert sorted(tar.getnames()) == sorted(f"{folder}/{name}" for name in [*FILES, "sha256sums.txt"])
        for name, content in FILES.items():
            member = tar.extractfile(f"{folder}/{name}")
            assert member is not None
            assert member.read() == content
        sums = tar.extractfile(f"{folder}/sha256sums.txt")
        assert sums is not None
        assert f"{hashlib.sha256(b'{}').hexdigest()}  config.json\n" in sums.read().decode()


def test_a_download_that_broke_goes_on_where_it_was(client: Client, address: str) -> None:
    whole = client.get(address).getvalue()
    half = len(whole) // 2
    first = client.get(address)
    start = b""
    blocks = iter(first.streaming_content)  # type: ignore[attr-defined]  # a streaming response's
    while len(start) < half:
        start = (start + next(blocks))[:half]
    rest = client.get(address, headers={"Range": f"bytes={half}-", "If-Range": first["ETag"]})
    assert rest.status_code == 206
    assert rest["Content-Range"] == f"bytes {half}-{len(whole) - 1}/{len(whole)}"
    assert start + rest.getvalue() == whole


def test_a_changed_file_is_sent_anew(client: Client, address: str, exported: Run) -> None:
    before = client.get(address)
    path = path_of(exported, "config.json")
    path.write_bytes(b"[]")  # as long as it was
    os.utime(path, (1, 1))
    after = client.get(address, headers={"Range": "bytes=100-", "If-Range": before["ETag"]})
    assert after.status_code == 200
    assert after["ETag"] != before["ETag"]
    assert b"[]" in after.getvalue()


def test_a_single_file_goes_on_where_it_was(client: Client, address: str, exported: Run) -> None:
    file = reverse("run_output", args=[exported.pk, "model.safetensors"])
    rest = client.get(file, headers={"Range": "bytes=1000000-"})
    assert rest.status_code == 206
    assert rest.getvalue() == FILES["model.safetensors"][1_000_000:]
    assert client.get(file, headers={"Range": "bytes=3000000-"}).status_code == 416


def test_only_managers_of_the_project_take_it(client: Client, address: str, ann: User, stranger: User) -> None:
    client.force_login(ann)
    assert client.get(address).status_code == 403
    client.force_login(stranger)
    assert client.get(address).status_code == 404
    client.logout()
    assert client.get(address).status_code == 302


def test_other_runs_have_no_archive(client: Client, address: str, project: Project) -> None:
    run = factories.run_with_output(project, "dropped.jsonl", "{}\n", "corpus")
    assert client.get(reverse("export_archive", args=[run.pk])).status_code == 404


def test_a_store_without_a_file_is_told_before_anything_is_sent(client: Client, address: str, exported: Run) -> None:
    path_of(exported, "config.json").unlink()
    assert client.get(address).status_code == 503


def test_files_beyond_eight_gib_are_in_the_archive(tmp_path: Path) -> None:
    """Read as far as the second header: the file is a hole."""
    large = (8 << 30) + 5
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(large)
    content = Content(tar_parts([("a/large", StoredFile(large, lambda: path.open("rb"))), ("a/b", b"end")], 0), "v")
    header = b"".join(content.pieces(0, 512))
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == large
    begins = 512 + large + (-large % 512)
    tail = b"".join(content.pieces(begins, content.size))
    assert tarfile.TarInfo.frombuf(tail[:512], "utf-8", "strict").name == "a/b"
    assert tail[512:515] == b"end"
