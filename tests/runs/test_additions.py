"""What adding a model takes is said before it starts, and so is what stands against it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from rest_framework.test import APIClient

from training.contract import DeviceReport
from webapp.accounts.models import ApiToken, Project, User
from webapp.accounts.tokens import create_api_token
from webapp.errors import BadInput, TutelageError, Unavailable
from webapp.runs.additions import addition_of, count, source_of_file, source_of_folder
from webapp.runs.machines import save_report

pytestmark = pytest.mark.django_db
GB = 10**9
LAPTOP = DeviceReport(kind="cpu", name="a laptop", memory=16 * GB, free=9 * GB, disk=20 * GB)
GPU = DeviceReport(kind="cuda", name="a GPU", memory=24 * GB, bf16=True, disk=500 * GB)
FILES = {"config.json": 700, "model.safetensors": 5 * GB, "README.md": 300, "pytorch_model.bin": 5 * GB}


class Hub:
    """answer: what it says of org/model; status and code: of an error; open_files: whether files may be had."""

    def __init__(self) -> None:
        self.answer: Any = {
            "siblings": [{"rfilename": name, "size": size} for name, size in FILES.items()],
            "safetensors": {"total": 2_500_000_000},
            "gated": False,
        }
        self.status, self.code, self.open_files = 200, "", True
        self.asked: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                hub.asked.append((self.path, self.headers.get("Authorization", "")))
                status, code = hub.status, hub.code
                if self.command == "HEAD":
                    status, code = (302, "") if hub.open_files else (403, "GatedRepo")
                body = hub.answer if isinstance(hub.answer, bytes) else json.dumps(hub.answer).encode()
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 (a name of the base class)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    cache.clear()
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server.server_port}")
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_a_hub_model_is_counted_by_what_the_hub_says(hub: Hub, mo: User) -> None:
    save_report(LAPTOP)
    addition = addition_of(mo, base_name="org/model")
    assert addition is not None
    assert (addition.disk, addition.memory) == (5 * GB + 1000, 10 * GB), "fp32, where bf16 is slow"
    assert addition.fits
    assert addition.exact
    assert addition.sentences[:2] == [
        "Needs 5.0 GB of disk on the training machine; 20 GB are free.",
        "Needs about 10 GB of 16 GB of memory to load and check it.",
    ]
    addition_of(mo, base_name="org/model")
    assert len(hub.asked) == 1, "the answer is kept while the form is filled in"
    save_report(GPU)
    addition = addition_of(mo, base_name="org/model", template="chatml")
    assert addition is not None
    assert (addition.disk, addition.memory) == (10 * GB + 1000, 5 * GB), "its weights are written once more"


def test_what_does_not_fit_is_said_with_both_figures(hub: Hub, mo: User) -> None:
    save_report(LAPTOP.model_copy(update={"disk": 4 * GB, "memory": 8 * GB}))
    addition = addition_of(mo, base_name="org/model")
    assert addition is not None
    assert not addition.fits
    assert any("The disk has no room" in line for line in addition.sentences)
    assert any("does not fit into memory" in line for line in addition.sentences)


def test_gguf_is_counted_as_what_it_becomes(hub: Hub, mo: User) -> None:
    save_report(LAPTOP)
    hub.answer = {"siblings": [{"rfilename": "m-Q4_K_M.gguf", "size": GB}], "gguf": {"total": 1_650_000_000}}
    addition = addition_of(mo, base_name="org/model/m-Q4_K_M.gguf")
    assert addition is not None
    assert (addition.disk, addition.memory) == (GB + 3_300_000_000, 6_600_000_000)
    for name, numbers in (("a.Q8_0.gguf", GB * 8 / 8.5), ("a-f16.gguf", GB / 2), ("a-IQ2_XXS.gguf", GB * 8 / 2.7)):
        about = count(source_of_file(name, GB), rewritten=False)
        assert about.disk == pytest.approx(2 * numbers, rel=1e-6), name
        assert not about.exact
    assert count(source_of_folder("/models/m", GB), rewritten=True).disk == GB, "it is written, not copied"


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "RepoNotFound", "the hub has no such model"),
        (401, "RepoNotFound", "the hub has no such model, or keeps it private"),
        (404, "RevisionNotFound", "has no branch, tag or commit v9"),
        (403, "GatedRepo", "only to people who accepted its license"),
        (500, "", "does not answer as it should"),
    ],
)
def test_what_the_hub_refuses_gets_a_sentence(hub: Hub, mo: User, status: int, code: str, words: str) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(TutelageError, match=words):
        addition_of(mo, base_name="org/model", revision="v9")


def test_files_behind_a_license_are_asked_for_with_the_persons_token(
    hub: Hub, mo: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.answer["gated"] = "manual"
    hub.open_files = False
    with pytest.raises(BadInput, match="store a token of yours on your profile page"):
        addition_of(mo, base_name="org/model")
    monkeypatch.setattr("webapp.runs.hub_models.hub_token", lambda _: "hf_mine")
    with pytest.raises(BadInput, match="Your token has no access"):
        addition_of(mo, base_name="org/model")
    assert hub.asked[-1] == ("/org/model/resolve/main/config.json", "Bearer hf_mine")
    hub.open_files = True
    assert addition_of(mo, base_name="org/model") is not None


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"siblings": 7}', b'{"siblings": [{"rfilename": null}]}'])
def test_rubbish_from_the_hub_is_no_size(hub: Hub, mo: User, answer: bytes) -> None:
    hub.answer = answer
    with pytest.raises(Unavailable, match="cannot be read"):
        addition_of(mo, base_name="org/model")


def test_a_repository_without_safetensors_is_refused_before_the_start(hub: Hub, mo: User) -> None:
    hub.answer = {"siblings": [{"rfilename": "pytorch_model.bin", "size": GB}]}
    with pytest.raises(BadInput, match="its weights are pickled"):
        addition_of(mo, base_name="org/model")


def test_without_a_network_the_form_says_so_and_can_still_be_sent(
    client: Client, project: Project, mo: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    client.force_login(mo)
    address = f"/projects/{project.slug}/runs/launch/add/advice/"
    page = client.post(address, {"base_name": "org/model"}).content.decode()
    assert "cannot reach the Hugging Face hub" in page
    for rubbish in ("../../etc", "/etc", "org/model/x/y", "a" * 400, "\x00", "http://169.254.169.254/x"):
        answer = client.post(address, {"base_name": rubbish, "chat_template": "nonsense"})
        assert answer.status_code in (200, 400), rubbish
        assert "Needs" not in answer.content.decode(), rubbish
    sent = client.post(address, {"file_name": "m.Q4_0.gguf", "file_bytes": str(GB)}).content.decode()
    assert "Needs about 3.3 GB of disk" in sent
    assert "give a whole number" in client.post(address, {"file_name": "m.zip", "file_bytes": "-1"}).content.decode()
    assert "Disk and memory appear" in client.post(address, {}).content.decode()


def client_of(person: User) -> APIClient:
    client = APIClient()
    _, secret = create_api_token(user=person, name="Test", scopes=ApiToken.Scope.values)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def test_the_api_says_the_same(hub: Hub, mo: User, ann: User, project: Project) -> None:
    save_report(LAPTOP)
    address = f"/api/v1/projects/{project.slug}/model-needs/"
    answer = client_of(mo).get(address, {"base_name": "org/model"})
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert (body["fits"], body["disk"], body["disk_free"], body["seconds"]) == (True, 5 * GB + 1000, 20 * GB, None)
    assert client_of(mo).get(address).status_code == 400
    assert client_of(mo).get(address, {"base_name": "org/model", "chat_template": "x"}).status_code == 400
    assert client_of(mo).get(address, {"file_name": "m.zip", "file_bytes": "many"}).status_code == 400
    assert client_of(ann).get(address, {"base_name": "org/model"}).status_code == 403
    hub.status, hub.code = 404, "RepoNotFound"
    missing = client_of(mo).get(address, {"base_name": "org/other"})
    assert (missing.status_code, "no such model" in missing.json()["message"]) == (400, True)
