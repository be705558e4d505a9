"""A disk that is full and servers that are away give a sentence, on pages and in the API."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from html import unescape
from pathlib import Path

import psycopg
import pytest
import redis
from django.conf import LazySettings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, ProgrammingError, connection
from django.db.utils import DatabaseErrorWrapper
from django.test import Client, RequestFactory
from django.urls import reverse

from annotations.models import Prompt
from tests import factories
from webapp.accounts.models import ApiToken, Project, User
from webapp.accounts.tokens import create_api_token
from webapp.data.models import Import
from webapp.errors import DISK_IS_FULL, NO_BROKER, NO_DATABASE, DiskFull, as_error, error_response

TINY = 4 << 20  # bytes
FULL_TABLES = ("django_session", "annotations_prompt")


@pytest.fixture
def tiny_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of a few megabytes, which is filled in no time."""
    folder = tmp_path_factory.mktemp("tiny")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TINY}", "tiny", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system can be mounted by root only: {mounted.stderr}")
    for parent in folder.parents:  # pytest's, so that the database's user gets there
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o711)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert os.statvfs(disk).f_bavail == 0


@pytest.fixture
def full_database(tiny_disk: Path, transactional_db: None, project: Project, ada: User) -> Iterator[None]:
    """PostgreSQL cannot add a page to the tables of sessions and prompts."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT setting FROM pg_settings WHERE name = 'data_directory'")
        owner = Path(cursor.fetchone()[0]).stat().st_uid
        os.chown(tiny_disk, owner, pwd.getpwuid(owner).pw_gid)
        tablespace = f"tiny_{connection.settings_dict['NAME']}"  # each of several test processes has its own
        cursor.execute(f"CREATE TABLESPACE {tablespace} LOCATION '{tiny_disk}'")
        for table in FULL_TABLES:
            cursor.execute(f"TRUNCATE {table} CASCADE")
            cursor.execute(f"ALTER TABLE {table} SET TABLESPACE {tablespace}")
        cursor.execute("CHECKPOINT")  # the next one, which could not write to a full disk, is five minutes away
    fill(tiny_disk)
    yield
    (tiny_disk / "filler").unlink()
    with connection.cursor() as cursor:
        for table in FULL_TABLES:
            cursor.execute(f"ALTER TABLE {table} SET TABLESPACE pg_default")
        cursor.execute(f"DROP TABLESPACE {tablespace}")


@pytest.fixture
def visitor() -> Client:
    return Client(raise_request_exception=False)


def test_signing_in_says_that_the_disk_is_full(full_database: None, visitor: Client, ada: User) -> None:
    form = {"login": ada.email, "password": factories.PASSWORD}
    page = visitor.post(reverse("account_login"), form)
    assert page.status_code == 507
    assert DISK_IS_FULL in unescape(page.content.decode())


def test_the_api_says_so_in_its_json(full_database: None, visitor: Client, ada: User) -> None:
    _, secret = create_api_token(user=ada, name="Test", scopes=ApiToken.Scope.values)
    answer = visitor.post(
        "/api/v1/projects/kite/prompts/",
        {"conversations": [[{"role": "user", "content": "Where is the kite?"}]]},
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert (answer.status_code, answer.json()) == (507, {"code": "disk_full", "message": DISK_IS_FULL})
    assert not Prompt.objects.exists()


@pytest.mark.django_db
def test_an_upload_says_so(
    tiny_disk: Path, visitor: Client, ada: User, project: Project, settings: LazySettings
) -> None:
    settings.FILE_UPLOAD_TEMP_DIR = str(tiny_disk)
    fill(tiny_disk)
    visitor.force_login(ada)
    rows = SimpleUploadedFile("rows.jsonl", b"x" * TINY)
    page = visitor.post(reverse("data_import_new", args=["kite"]), {"file": rows})
    assert page.status_code == 507
    assert DISK_IS_FULL in unescape(page.content.decode())


@pytest.mark.django_db
def test_an_upload_that_fits_in_memory_says_so(
    tiny_disk: Path, visitor: Client, ada: User, project: Project, settings: LazySettings
) -> None:
    settings.STORAGES = settings.STORAGES | {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tiny_disk / "uploads"},
        }
    }
    fill(tiny_disk)
    visitor.force_login(ada)
    rows = SimpleUploadedFile("rows.jsonl", b'{"prompt": "Where is the kite?"}\n' * 3000)
    page = visitor.post(reverse("data_import_new", args=["kite"]), {"file": rows})
    assert page.status_code == 507
    assert not Import.objects.exists()


def test_a_database_that_is_away_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OperationalError) as raised, DatabaseErrorWrapper(connection):
        psycopg.connect(host=str(tmp_path), dbname="tutelage")
    error = as_error(raised.value)
    assert error is not None
    assert (error.status, error.error_code, error.message) == (503, "database_unavailable", NO_DATABASE)


def test_a_database_that_is_away_for_want_of_space_says_that(tiny_disk: Path, settings: LazySettings) -> None:
    settings.HOME = tiny_disk
    fill(tiny_disk)
    with pytest.raises(OperationalError) as raised, DatabaseErrorWrapper(connection):
        psycopg.connect(host=str(tiny_disk), dbname="tutelage")
    error = as_error(raised.value)
    assert error is not None
    assert (error.status, error.message) == (507, DISK_IS_FULL)


@pytest.mark.django_db
def test_a_mistake_in_a_query_of_ours_is_no_outage() -> None:
    with pytest.raises(ProgrammingError) as raised, connection.cursor() as cursor:
        cursor.execute("SELECT nothing")
    assert as_error(raised.value) is None


def test_a_broker_that_is_away_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(redis.ConnectionError) as raised:
        redis.Redis(unix_socket_path=str(tmp_path / "none.sock")).ping()
    error = as_error(raised.value)
    assert error is not None
    assert (error.status, error.message) == (503, NO_BROKER)


def test_the_page_of_an_outage_asks_the_database_nothing(rf: RequestFactory) -> None:
    """No database is marked for this test, so a query would fail it."""
    page = error_response(rf.get("/label/"), DiskFull(DISK_IS_FULL))
    assert page.status_code == 507
    assert DISK_IS_FULL in unescape(page.content.decode())
