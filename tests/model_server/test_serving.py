"""The registry with the real model server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.narrowing import existing
from tests.runs.conftest import places, trained  # noqa: F401 (fixtures)
from webapp.accounts.models import Project
from webapp.errors import Unavailable
from webapp.home_folder import ROOT
from webapp.model_server.serving import ModelServer
from webapp.registry.models import Deployment
from webapp.registry.services import deploy, register_model, reload_deployments, roll_back

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


class Process:
    """A model server that can be restarted on its port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = ModelServer(self.url, "word")
        (folder / "config.json").write_text(
            json.dumps({"stage": "serve", "port": self.port, "threads": 1, "token": "word", "slots": 2})
        )
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.child = subprocess.Popen([sys.executable, "-m", "training", "serve", str(self.folder)], cwd=ROOT)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/health", timeout=1).is_success:
                    return
            except httpx.HTTPError:
                assert self.child.poll() is None, "the model server did not start"
                time.sleep(0.1)
        pytest.fail("the model server does not answer")

    def kill(self) -> None:
        if self.child:
            self.child.kill()
            self.child.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    folder = tmp_path / "serve"
    folder.mkdir()
    process = Process(folder)
    process.start()
    yield process
    process.kill()


def test_models_go_live_come_back_and_survive_a_restart_of_the_server(
    server: Process,
    trained: Path,  # noqa: F811
    project: Project,
) -> None:
    by = project.created_by
    one = register_model(project=project, name="one", kind="full", stage="sft", by=by, folder=trained / "base")
    two = register_model(project=project, name="two", kind="full", stage="sft", by=by, folder=trained / "base")
    deploy(project=project, model=one, by=by, why="first", server=server.client)
    second = deploy(project=project, model=two, by=by, why="better", server=server.client)
    assert set(server.client.served()) == {"kite-1", "kite-2"}

    server.kill()
    assert reload_deployments(server.client) == 0
    second.refresh_from_db()
    assert "does not answer" in second.problem

    server.start()
    assert reload_deployments(server.client) == 1
    assert set(server.client.served()) == {"kite-2"}
    returned = existing(roll_back(deployment=second, by=by, why="worse", server=server.client))
    assert (returned.model, returned.state) == (one, Deployment.State.LIVE)
    assert "kite-1" in server.client.served()


def test_the_server_s_own_words_reach_the_person(server: Process, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"The model server refused: .+"):
        server.client.load("nobody", tmp_path / "nowhere")
    with pytest.raises(Unavailable, match=r"The model server refused: .+"):
        ModelServer(server.url, "wrong word").served()
