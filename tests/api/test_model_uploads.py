"""A model's file sent by machine."""

from __future__ import annotations

from typing import Any

import pytest

from webapp.accounts.models import Project, User
from webapp.runs.models import ModelUpload, Run
from webapp.runs.uploads import PIECE_BYTES

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_folders")]
UPLOADS, RUNS = "/api/v1/projects/kite/model-uploads/", "/api/v1/projects/kite/runs/"


def put(client: Any, pk: int, offset: int, content: bytes) -> Any:
    return client.put(f"/api/v1/model-uploads/{pk}/?offset={offset}", content, content_type="application/octet-stream")


def test_a_file_is_sent_in_pieces_and_added(client_of: Any, mo: User, project: Project) -> None:
    client = client_of(mo)
    made = client.post(UPLOADS, {"name": "smol.zip", "size": 7}, format="json")
    assert made.status_code == 201, made.content
    assert (made.json()["received"], made.json()["piece_bytes"]) == (0, PIECE_BYTES)
    pk = made.json()["id"]
    assert put(client, pk, 0, b"0123").json()["received"] == 4
    again = put(client, pk, 0, b"0123")
    assert (again.status_code, again.json()["code"]) == (409, "offset")
    assert client.get(f"/api/v1/model-uploads/{pk}/").json()["received"] == 4
    early = client.post(RUNS, {"stage": "add", "upload": pk}, format="json")
    assert (early.status_code, "4 of 7 bytes" in early.json()["message"]) == (400, True)
    assert put(client, pk, 4, b"456").json()["complete"] is True
    launched = client.post(RUNS, {"stage": "add", "upload": pk}, format="json")
    assert launched.status_code == 201, launched.content
    assert Run.objects.get().upload_id == pk
    assert client.delete(f"/api/v1/model-uploads/{pk}/").status_code == 409


def test_only_managers_of_its_project_reach_it(
    client_of: Any, mo: User, ann: User, stranger: User, project: Project
) -> None:
    body = {"name": "smol.zip", "size": 7}
    assert client_of(ann).post(UPLOADS, body, format="json").status_code == 403
    pk = client_of(mo).post(UPLOADS, body, format="json").json()["id"]
    assert put(client_of(ann), pk, 0, b"01").status_code == 403
    assert put(client_of(stranger), pk, 0, b"01").status_code == 404
    assert client_of(mo).delete(f"/api/v1/model-uploads/{pk}/").status_code == 204
    assert not ModelUpload.objects.exists()


@pytest.mark.parametrize("body", [{"name": "smol.bin", "size": 7}, {"name": "smol.zip", "size": -1}, {"size": 7}, {}])
def test_another_kind_of_file_is_refused(client_of: Any, mo: User, project: Project, body: Any) -> None:
    assert client_of(mo).post(UPLOADS, body, format="json").status_code == 400
    assert not ModelUpload.objects.exists()


def test_a_piece_that_is_no_bytes_adds_nothing(client_of: Any, mo: User, project: Project) -> None:
    client = client_of(mo)
    pk = client.post(UPLOADS, {"name": "smol.zip", "size": 7}, format="json").json()["id"]
    assert client.put(f"/api/v1/model-uploads/{pk}/").json()["received"] == 0
    assert client.put(f"/api/v1/model-uploads/{pk}/?offset=x", b"1", content_type="text/plain").status_code == 400
