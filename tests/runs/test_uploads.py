"""Models that people send as files: in pieces, bounded, and gone once a run has taken them in."""

from __future__ import annotations

import io
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests import factories
from tests.narrowing import existing
from tests.training.toys import toy_policy
from webapp.accounts.models import Project, User
from webapp.errors import BadInput, Conflict, DiskFull
from webapp.runs import uploads
from webapp.runs.execution import execute
from webapp.runs.management import waiting
from webapp.runs.models import ModelUpload, Run
from webapp.runs.services import launch_run, resume_run, retry

pytestmark = pytest.mark.django_db


@pytest.fixture
def announced(project: Project) -> ModelUpload:
    return uploads.start_upload(project=project, by=project.created_by, name="C:\\models\\smol.tar.gz", size=10)


def piece(upload: ModelUpload, offset: int, content: bytes) -> ModelUpload:
    return uploads.append_piece(upload=upload, offset=offset, content=io.BytesIO(content))


def sent(project: Project, path: Path) -> ModelUpload:
    content = path.read_bytes()
    upload = uploads.start_upload(project=project, by=project.created_by, name=path.name, size=len(content))
    for start in range(0, len(content), uploads.PIECE_BYTES):
        upload = piece(upload, start, content[start : start + uploads.PIECE_BYTES])
    return upload


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    toy_policy(tmp_path / "toy")
    return Path(shutil.make_archive(str(tmp_path / "tiny-chat"), "zip", tmp_path / "toy"))


def test_pieces_become_one_file(announced: ModelUpload) -> None:
    assert announced.name == "smol.tar.gz"
    half = piece(announced, 0, b"01234")
    assert (half.received, half.complete) == (5, False)
    whole = piece(announced, 5, b"56789")
    assert whole.complete
    path = uploads.file_of(whole)
    assert (path.name, path.read_bytes()) == ("model.tar.gz", b"0123456789")
    assert (path.parent.stat().st_mode & 0o777) == 0o700


def test_a_file_that_is_gone_is_sent_from_the_start(announced: ModelUpload) -> None:
    piece(announced, 0, b"01234")
    shutil.rmtree(uploads.file_of(announced).parent)
    with pytest.raises(Conflict) as refused:
        piece(announced, 5, b"56789")
    assert refused.value.data["received"] == 0
    assert piece(announced, 0, b"01234").received == 5
    assert uploads.file_of(announced).read_bytes() == b"01234"


def test_a_piece_out_of_its_place_is_answered_with_the_right_one(announced: ModelUpload) -> None:
    piece(announced, 0, b"01234")
    for offset in (0, 4, 6):
        with pytest.raises(Conflict) as refused:
            piece(announced, offset, b"xx")
        assert (refused.value.error_code, refused.value.data["received"]) == ("offset", 5)
    assert uploads.file_of(announced).read_bytes() == b"01234"


def test_a_piece_that_came_in_half_is_written_over(announced: ModelUpload) -> None:
    piece(announced, 0, b"01234")
    with uploads.file_of(announced).open("ab") as file:
        file.write(b"what a killed process wrote")
    assert uploads.file_of(piece(announced, 5, b"56")).read_bytes() == b"0123456"


def test_more_than_was_announced_is_refused(announced: ModelUpload) -> None:
    with pytest.raises(BadInput, match="more bytes than the 10 of the file"):
        piece(announced, 0, bytes(11))
    announced.refresh_from_db()
    assert announced.received == 0


@pytest.mark.parametrize(
    ("name", "size", "field"),
    [("model.bin", 5, "name"), ("model", 5, "name"), ("model.zip", 0, "size"), ("model.zip", 10**15, "size")],
)
def test_what_will_not_do_is_refused_before_it_is_sent(project: Project, name: str, size: int, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        uploads.start_upload(project=project, by=project.created_by, name=name, size=size)
    assert refused.value.data["field"] == field


def test_the_disk_must_have_room_for_all_that_is_on_its_way(
    project: Project, announced: ModelUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = uploads.SPARE + 100

    monkeypatch.setattr("webapp.runs.uploads.shutil.disk_usage", lambda _: Usage)
    uploads.start_upload(project=project, by=project.created_by, name="a.zip", size=45)
    with pytest.raises(DiskFull, match="GB are needed to keep and unpack this file"):
        uploads.start_upload(project=project, by=project.created_by, name="a.zip", size=45)


def test_a_file_is_added_only_whole_and_only_to_its_project(project: Project, announced: ModelUpload) -> None:
    with pytest.raises(BadInput, match=r"0 of 10 bytes of smol\.tar\.gz are here"):
        launch_run(project=project, stage="add", by=project.created_by, upload=announced)
    whole = piece(announced, 0, b"0123456789")
    other = factories.project(name="Crane")
    with pytest.raises(BadInput, match="another project"):
        launch_run(project=other, stage="add", by=other.created_by, upload=whole)
    with pytest.raises(BadInput, match="not both"):
        launch_run(project=project, stage="add", by=project.created_by, upload=whole, base_name="org/model")
    with pytest.raises(BadInput, match="does not take one"):
        launch_run(project=project, stage="tokenizer", by=project.created_by, upload=whole)


def test_nobody_names_a_file_of_somebody_else(project: Project) -> None:
    with pytest.raises(BadInput, match="give the name of a model"):
        launch_run(project=project, stage="add", by=project.created_by, base_name="upload:smol.zip")


@pytest.mark.django_db(transaction=True)
def test_a_run_takes_the_file_in_and_deletes_it(project: Project, archive: Path) -> None:
    upload = sent(project, archive)
    run = launch_run(project=project, stage="add", by=project.created_by, upload=upload, config={"threads": 1})
    folder = uploads.file_of(upload).parent
    with pytest.raises(Conflict, match="A run is adding"):
        uploads.delete_upload(upload)
    execute(run.pk)
    run.refresh_from_db()
    assert run.state == Run.State.SUCCEEDED, run.error
    model = existing(run.output)
    assert (model.name, model.note) == (
        "tiny-chat",
        "From the uploaded file tiny-chat.zip. License: its files name none.",
    )
    assert str(folder.parent) not in str(run.result)
    assert not ModelUpload.objects.exists()
    assert not folder.exists()
    with pytest.raises(Conflict, match=r"tiny-chat\.zip was deleted after it was sent"):
        retry(run=run, by=project.created_by)


@pytest.mark.django_db(transaction=True)
def test_a_damaged_file_fails_with_a_sentence_and_is_kept_for_another_try(project: Project, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-3000])
    upload = sent(project, archive)
    run = launch_run(project=project, stage="add", by=project.created_by, upload=upload)
    execute(run.pk)
    run.refresh_from_db()
    assert "this archive is damaged" in run.error
    assert "/" not in run.error, "no path of the machine"
    resume_run(run=run, by=project.created_by)
    uploads.file_of(upload).parent.rename(uploads.file_of(upload).parent.with_name("elsewhere"))
    ModelUpload.objects.all().delete()
    run.refresh_from_db()
    Run.objects.filter(pk=run.pk).update(state=Run.State.FAILED)
    with pytest.raises(Conflict, match="was deleted"):
        resume_run(run=run, by=project.created_by)


@pytest.mark.django_db(transaction=True)
def test_what_nobody_adds_is_deleted_after_a_week(project: Project, announced: ModelUpload, archive: Path) -> None:
    used = sent(project, archive)
    launch_run(project=project, stage="add", by=project.created_by, upload=used)
    orphan = uploads.file_of(announced).parent.with_name("orphan")
    orphan.mkdir()
    later = timezone.now() + timedelta(days=8)
    assert uploads.delete_old_uploads() == 0
    assert uploads.delete_old_uploads(later) == 2
    assert list(ModelUpload.objects.all()) == [used]
    assert not orphan.exists()
    assert not uploads.file_of(announced).parent.exists()
    assert uploads.file_of(used).exists()


@pytest.mark.django_db(transaction=True)
def test_the_command_takes_a_file_wherever_it_is(
    project: Project, archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(waiting, "pause", lambda: execute(Run.objects.get().pk))
    call_command("add_model", project.slug, str(archive))
    assert "Added tiny-chat as model" in capsys.readouterr().out
    assert archive.exists()
    assert not ModelUpload.objects.exists()


def test_the_command_and_the_form_name_a_chat_template(client: Any, project: Project, archive: Path, mo: User) -> None:
    call_command("add_model", project.slug, str(archive), "--template", "gemma", "--no-wait")
    assert Run.objects.get().config["chat_template"] == "gemma"
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("add_model", project.slug, str(archive), "--template", "nonsense")
    client.force_login(mo)
    address = f"/projects/{project.slug}/runs/launch/add/"
    assert '<option value="llama3">' in client.get(address).content.decode()
    form = {"chat_template": "family", "seed": 0, "threads": 0, "device": "auto", "base_name": "org/base"}
    client.post(address, form)
    assert Run.objects.latest("pk").config["chat_template"] == "family"
    refused = client.post(address, form | {"chat_template": "nonsense"})
    assert (refused.status_code, Run.objects.count()) == (400, 2)


def test_the_form_takes_a_name_or_a_file(client: Any, project: Project, mo: User, announced: ModelUpload) -> None:
    client.force_login(mo)
    address = f"/projects/{project.slug}/runs/launch/add/"
    page = client.get(address).content.decode()
    assert 'id="model-file"' in page
    assert "Name a model, or choose a file that holds one." in client.post(address, {"name": ""}).content.decode()
    unfinished = client.post(
        address, {"chat_template": "keep", "seed": 0, "threads": 0, "device": "auto", "upload": announced.pk}
    )
    assert "This file is not here any more. Choose it again." in unfinished.content.decode()
    piece(announced, 0, b"0123456789")
    launched = client.post(
        address, {"chat_template": "keep", "seed": 0, "threads": 0, "device": "auto", "upload": announced.pk}
    )
    assert launched.status_code == 302, launched.content.decode()
    run = Run.objects.get()
    assert (run.name, run.source_name, run.upload) == ("smol", "smol.tar.gz", announced)
