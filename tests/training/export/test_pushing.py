"""Exports pushed to a hub on this machine, by the hub's own client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.export.hub_server import WRITER, Hub
from tests.training.toys import events, run_folder, start_child, toy_policy
from training.contract import InputError
from training.export.pushing import push
from training.run.checkpoints import Stopped

# a warning of the hub's own client about how it calls its HTTP library
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    for place in ("constants.ENDPOINT", "hf_api.ENDPOINT", "lfs.constants.ENDPOINT"):
        monkeypatch.setattr(f"huggingface_hub.{place}", made.address, raising=False)
    yield made
    made.close()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Kite\n")
    return folder


def pushed(folder: Path, step: Any = lambda *_: None, token: str = WRITER, public: bool = False) -> str:
    return push(folder, "ada/kite", public=public, token=token, message="Export as bf16", step=step)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_new_repository_is_private_and_gets_every_file_in_one_commit(hub: Hub, exported: Path) -> None:
    told: list[tuple[str, int, int]] = []
    address = pushed(exported, lambda *said: told.append(said))
    assert hub.repositories == {"ada/kite": contents(exported)}
    assert hub.private == {"ada/kite": True}
    assert hub.commits == ["Export as bf16"]
    assert address.startswith(f"{hub.address}/ada/kite/commit/")
    total = sum(map(len, contents(exported).values()))
    assert told[-1] == ("pushing MB", total, total)
    done = [done for phase, done, _ in told if phase == "pushing MB"]
    assert any(0 < one < total for one in done), "it tells how far it is within a file"


def test_a_second_push_replaces_what_changed_and_older_weights(hub: Hub, exported: Path) -> None:
    pushed(exported)
    hub.repositories["ada/kite"] |= {"notes.txt": b"mine", "model-00003-of-00003.safetensors": b"old"}
    (exported / "config.json").write_text('{"a": 1}')
    pushed(exported)
    assert hub.repositories["ada/kite"] == contents(exported) | {"notes.txt": b"mine"}
    assert len(hub.sent) == 1, "the weights were there already"


def test_a_private_export_does_not_go_to_a_public_repository(hub: Hub, exported: Path) -> None:
    hub.repositories["ada/kite"], hub.private["ada/kite"] = {}, False
    with pytest.raises(InputError, match="is public on the hub"):
        pushed(exported)
    assert hub.repositories["ada/kite"] == {}
    pushed(exported, public=True)
    assert hub.repositories["ada/kite"] == contents(exported)


def test_a_repository_is_public_only_where_that_was_said(hub: Hub, exported: Path) -> None:
    pushed(exported, public=True)
    assert hub.private == {"ada/kite": False}


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (("/api/whoami-v2", 401), "does not know your token"),
        (("/api/repos/create", 403), "may not write to ada/kite; give it write access to ada"),
        (("/api/repos/create", 404), "no such account"),
        (("/commit/", 403), "may not write"),
        (("/blobs/", 403), "may not write"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(
    hub: Hub, exported: Path, refused: tuple[str, int], words: str
) -> None:
    hub.refuse = refused
    with pytest.raises(InputError, match=words) as caught:
        pushed(exported)
    assert "resume the run" in caught.value.message
    assert WRITER not in caught.value.message


def test_a_token_that_only_reads_is_refused_before_anything_is_made(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hub, "answer", lambda *_: (200, {"name": "ada", "type": "user", "auth": {"accessToken": {"role": "read"}}})
    )
    with pytest.raises(InputError, match="can only read"):
        pushed(exported)
    assert hub.repositories == {}


def test_without_a_token_or_a_way_there_nothing_is_pushed(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no token"):
        pushed(exported, token="")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        pushed(exported)


def test_a_push_stops_within_a_file_and_goes_on(hub: Hub, exported: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if phase == "pushing MB" and done > 100_000:
            raise Stopped

    with pytest.raises(Stopped):
        pushed(exported, stop)
    assert hub.commits == []
    pushed(exported)
    assert hub.repositories["ada/kite"] == contents(exported)


@pytest.mark.slow
def test_a_refused_push_is_resumed_without_a_second_export(hub: Hub, tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path / "run", {"stage": "export", "base": str(toy_policy(tmp_path / "base")), "push_to": "ada/kite"}
    )
    surroundings = {"HF_ENDPOINT": hub.address, "HF_TOKEN": WRITER, "HF_HUB_DISABLE_XET": "1"}
    hub.refuse = ("/commit/", 403)
    refused = start_child(folder, **surroundings)
    output = refused.communicate()[0]
    assert refused.returncode == 2, output
    assert "may not write to ada/kite" in events(folder, "failed")[0]["message"]
    written = (folder / "output" / "model.safetensors").stat()
    hub.refuse = None
    child = start_child(folder, **surroundings)
    output += child.communicate()[0]
    assert child.returncode == 0, output
    assert (folder / "output" / "model.safetensors").stat().st_mtime_ns == written.st_mtime_ns
    assert hub.repositories["ada/kite"].keys() == {path.name for path in (folder / "output").iterdir()}
    assert WRITER not in output
    for path in folder.rglob("*"):
        assert not path.is_file() or WRITER.encode() not in path.read_bytes(), path
