"""Fetching from a hub that runs on this machine."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.training.toys import CHATML, events, foreign_policy, foreign_tokenizer, run_folder, run_here, start_child
from training.contract import InputError
from training.models.hub import fetch_from_hub
from training.run.checkpoints import Stopped

SHA = "1" * 40
TOKEN = "hf_secretsecretsecret"


class Hub:
    """One repository, org/model, and what was asked of it."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.gated = files, False
        self.lies: dict[str, bytes] = {}  # what is sent in place of a file
        self.asked: list[tuple[str, str]] = []  # path and range of each request for a file's bytes
        self.tokens: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.tokens.append(request.headers.get("Authorization", ""))
        path = request.path.partition("?")[0]
        if self.gated and f"Bearer {TOKEN}" not in self.tokens[-1]:
            self.send(request, 401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/org/model"):
            self.send(request, 200, json.dumps(self.about()).encode(), {"Content-Type": "application/json"})
        elif (name := path.removeprefix(f"/org/model/resolve/{SHA}/")) in self.files:
            self.asked.append((name, request.headers.get("Range", "")))
            content = self.lies.get(name, self.files[name])
            start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))) else 0
            span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if found else {}
            self.send(request, 206 if found else 200, content[start:], span)
        else:
            self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def about(self) -> dict[str, object]:
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": "0" * 40}
            | (
                {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}}
                if name.endswith((".safetensors", ".gguf"))
                else {}
            )
            for name, content in self.files.items()
        ]
        return {"id": "org/model", "modelId": "org/model", "sha": SHA, "siblings": siblings, "tags": []}

    def send(self, request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    folder = foreign_policy(tmp_path / "source", foreign_tokenizer(CHATML, pad_token="<pad>"))
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    made = Hub(files | {"README.md": b"---\nlicense: mit\n---\n", "modeling_own.py": b"raise SystemExit"})
    for place in ("huggingface_hub.constants.ENDPOINT", "huggingface_hub.hf_api.ENDPOINT"):
        monkeypatch.setattr(place, made.address, raising=False)
    template = made.address + "/{repo_id}/resolve/{revision}/{filename}"
    for place in ("constants", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{place}.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield made
    made.server.shutdown()
    made.server.server_close()


def pieces(monkeypatch: pytest.MonkeyPatch, size: int = 1000) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", size)


def test_a_model_is_added_from_the_hub_with_no_second_copy(hub: Hub, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", {"stage": "add", "base": "org/model"})
    result = run_here(folder)
    assert result["model"]["license"] == "mit"
    kept = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    assert kept == {name: content for name, content in hub.files.items() if not name.endswith(".py")}
    assert not (folder / "fetched").exists()
    assert not (tmp_path / "cache").exists(), "the hub's own cache would hold every file once more"


def test_progress_counts_bytes_within_a_file(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces(monkeypatch)
    told: list[tuple[int, int]] = []
    fetch_from_hub("org/model", "", tmp_path / "fetched", lambda done, total: told.append((done, total)))
    total = sum(len(content) for name, content in hub.files.items() if not name.endswith(".py"))
    assert told[-1] == (total, total)
    assert len(told) > len(hub.files["model.safetensors"]) // 1000
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_stopped_download_goes_on_within_the_file(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces(monkeypatch)

    def stop_halfway(done: int, total: int) -> None:
        if done > total - 5000:
            raise Stopped

    with pytest.raises(Stopped):
        fetch_from_hub("org/model", "", tmp_path / "fetched", stop_halfway)
    partial = next((tmp_path / "fetched").rglob("*.incomplete"))
    size, name = partial.stat().st_size, partial.name.removesuffix(".incomplete")
    assert size > 0
    hub.asked.clear()
    folder = fetch_from_hub("org/model", "", tmp_path / "fetched", lambda *_: None)
    assert hub.asked[0] == (name, f"bytes={size}-")
    assert (folder / name).read_bytes() == hub.files[name]


def test_a_file_damaged_on_its_way_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    hub.lies["model.safetensors"] = bytes(len(hub.files["model.safetensors"]))
    with pytest.raises(InputError, match="damaged on its way"):
        fetch_from_hub("org/model", "", tmp_path / "fetched", lambda *_: None)
    assert not list((tmp_path / "fetched").rglob("model.safetensors*"))


def test_what_the_disk_cannot_hold_is_said_before_a_byte_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 600 << 20

    hub.files["model.safetensors"] = bytes(200 << 20)
    monkeypatch.setattr("training.models.model_files.shutil.disk_usage", lambda _: Usage)
    with pytest.raises(InputError, match=r"0\.2 GB are needed on the training machine's disk to fetch it, and 0\.6 GB"):
        fetch_from_hub("org/model", "", tmp_path / "fetched", lambda *_: None)
    assert not hub.asked


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "its weights are pickled"),
        ({"a.gguf": b"x", "b.gguf": b"x"}, "there are several GGUF files; name one, such as org/model/a.gguf"),
        ({"notes.md": b"x"}, "there are no files of a model there"),
    ],
)
def test_what_the_hub_has_no_use_for_is_refused_unfetched(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    hub.files = files
    with pytest.raises(InputError, match=words):
        fetch_from_hub("org/model", "", tmp_path / "fetched", lambda *_: None)
    assert not hub.asked


def test_one_gguf_file_can_be_named(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"a.gguf": b"one", "b.gguf": b"two", "README.md": b"card"}
    path = fetch_from_hub("org/model/b.gguf", "", tmp_path / "fetched", lambda *_: None)
    assert (path.name, path.read_bytes()) == ("b.gguf", b"two")
    assert [name for name, _ in hub.asked] == ["b.gguf", "README.md"]
    with pytest.raises(InputError, match=r"there is no file c\.gguf"):
        fetch_from_hub("org/model/c.gguf", "", tmp_path / "fetched", lambda *_: None)


@pytest.mark.slow
def test_a_token_opens_a_gated_model_and_is_written_nowhere(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    folder = run_folder(tmp_path / "run", {"stage": "add", "base": "org/model"})
    surroundings = {"HF_ENDPOINT": hub.address, "HF_HUB_VERBOSITY": "debug", "HF_DEBUG": "1"}
    refused = start_child(folder, **surroundings)
    output = refused.communicate()[0]
    assert refused.returncode == 2
    assert "let only people who accepted its license" in events(folder, "failed")[0]["message"]
    child = start_child(folder, HF_TOKEN=TOKEN, **surroundings)
    output += child.communicate()[0]
    assert child.returncode == 0, output
    assert f"Bearer {TOKEN}" in hub.tokens
    (folder / "log.txt").write_text(output)
    for path in folder.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
