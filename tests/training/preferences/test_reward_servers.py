from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from training.contract import InputError, Turn
from training.contract.rewards import URLReward
from training.preferences.reward_functions import RewardBatch
from training.preferences.reward_process import RewardProcess
from training.preferences.reward_server import HOSTS, TOKENS, RewardServer, ServerFailed

BATCH = RewardBatch([[Turn(role="user", content="2+2?")]] * 2, ["4", "5"], ["4", "4"], [{"level": 1}, {}])


class ScriptedServer(HTTPServer):
    """Gives these answers, a status and a body each, and keeps what it was asked."""

    answers: list[tuple[int, Any]]
    asked: list[tuple[dict[str, str], Any]]


class Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((dict(self.headers), body))
        status, answer = self.server.answers.pop(0)
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Nothing: tests need no log."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(("127.0.0.1", 0), Handler) as scripted:
        scripted.answers, scripted.asked = [], []
        thread = threading.Thread(target=scripted.serve_forever, daemon=True)
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()


def client(
    server: ScriptedServer, *, slept: list[float] | None = None, token: str = "", **settings: Any
) -> RewardServer:
    term = URLReward(url=f"http://127.0.0.1:{server.server_port}/score", **settings)
    environment = {HOSTS: "127.0.0.1", TOKENS: f"127.0.0.1:{server.server_port}={token}" if token else ""}
    return RewardServer(term, environment, sleep=(slept if slept is not None else []).append)


def test_a_batch_is_posted_and_scores_come_back(server: ScriptedServer) -> None:
    server.answers = [(200, {"scores": [1, None]})]
    assert client(server, token="hush").score(BATCH) == [1, None]
    headers, body = server.asked[0]
    assert headers["Authorization"] == "Bearer hush"
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"
    assert body == {
        "prompts": [[{"role": "user", "content": "2+2?"}]] * 2,
        "replies": ["4", "5"],
        "references": ["4", "4"],
        "data": [{"level": 1}, {}],
    }


def test_a_server_that_is_busy_is_asked_again_after_growing_pauses(server: ScriptedServer) -> None:
    server.answers = [(503, {}), (429, {}), (200, {"scores": [0, 1]})]
    slept: list[float] = []
    assert client(server, slept=slept).score(BATCH) == [0, 1]
    assert slept == [0.5, 1.0]


def test_it_is_given_up_after_the_retries(server: ScriptedServer) -> None:
    server.answers = [(500, b"out of order")] * 3
    with pytest.raises(ServerFailed, match=r"127\.0\.0\.1: it answered with status 500: out of order \(3 tries\)"):
        client(server, retries=2).score(BATCH)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((400, {"error": "no"}), "status 400"),
        ((302, {}), "status 302"),  # a redirect could lead inside
        ((200, b"<html>"), "no JSON"),
        ((200, [1, 2]), 'not {"scores"'),
        ((200, {"scores": [1]}), "1 scores for 2 replies"),
        ((200, {"scores": [1, "high"]}), "reply 2 is no number"),
        ((200, b'{"scores": [1, NaN]}'), "no finite number"),
    ],
)
def test_an_answer_that_does_not_fit_is_told_at_once(server: ScriptedServer, answer: Any, message: str) -> None:
    server.answers = [answer]
    with pytest.raises(ServerFailed, match=message):
        client(server).score(BATCH)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "localhost", "[::ffff:127.0.0.1]"]
)
def test_addresses_inside_private_networks_are_the_operators_to_allow(host: str) -> None:
    with pytest.raises(InputError, match=rf"{HOSTS}="):
        RewardServer(URLReward(url=f"http://{host}:9/"), {}).score(BATCH)


def test_a_token_goes_over_https_only() -> None:
    with pytest.raises(InputError, match="https"):
        RewardServer(URLReward(url="http://judge.example.org/"), {TOKENS: "judge.example.org=hush"})
    term = URLReward(url="https://other.example.org/")
    assert RewardServer(term, {TOKENS: "judge.example.org=hush"}).token == ""


def test_it_runs_in_a_process_of_its_own(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOSTS, "127.0.0.1")
    server.answers = [(200, {"scores": [1, 0]})]
    process = RewardProcess(URLReward(url=f"http://127.0.0.1:{server.server_port}/"))
    assert process.score(BATCH) == [1, 0]
    process.close()
