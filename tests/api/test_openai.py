"""/v1 through the site: the official client over real HTTP, a real model server, a random model.

Over 300 lines: all cases share one running site and model server.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests import factories
from tests.api.serving import Face, site
from tests.narrowing import existing
from tests.training.serving import ENDLESS, TOKEN, served, until
from tests.training.toys import ALTERNATES, toy_policy
from webapp.accounts.models import Project, User
from webapp.api.openai import limits
from webapp.chat.live import client as live_client
from webapp.registry.models import ModelVersion
from webapp.registry.services import deploy, register_model

pytestmark = pytest.mark.django_db(transaction=True)
HELLO: Any = [{"role": "user", "content": "the cat sat"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    return {name: toy_policy(top / name, seed) for seed, name in enumerate(("one", "two"))}


@pytest.fixture
def face(project: Project, folders: dict[str, Path], settings: Any, tmp_path: Path) -> Iterator[Face]:
    """Kite answers with its second model; the first is a tokenizer."""
    settings.ARTEFACTS_URL = f"file://{tmp_path}/artefacts"
    settings.MODEL_SERVER_TOKEN = TOKEN
    Project.objects.filter(pk=project.pk).update(temperature=0, max_new_tokens=24, system_prompt="")
    project.refresh_from_db()
    factories.model_version(project, number=1, kind=ModelVersion.Kind.TOKENIZER)
    with served({}, slots=4, most=4) as models, site() as url:
        settings.MODEL_SERVER_URL = models.url
        face = Face(url, models, project)
        put_live(face, folders["one"])
        yield face


def put_live(face: Face, folder: Path, share: float = 1.0) -> ModelVersion:
    by = face.project.created_by
    model = register_model(project=face.project, name="random", kind="full", stage="sft", by=by, folder=folder)
    deploy(project=face.project, model=model, by=by, share=share)
    return model


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# ------------------------------------------------------------------------------------------------------------- talking


def test_the_official_client_gets_a_whole_reply(face: Face, tess: User) -> None:
    reply = face.client(tess).chat.completions.create(model="kite", messages=HELLO, max_tokens=8, extra_body=ENDLESS)
    by_hand = face.models.chat(model="kite-2", temperature=0, **ENDLESS).json()
    assert reply.choices[0].message.content == by_hand["choices"][0]["message"]["content"]
    assert (reply.object, reply.model, reply.choices[0].finish_reason) == ("chat.completion", "kite-2", "length")
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 8


def test_the_official_client_streams_the_same_reply(face: Face, tess: User) -> None:
    asked: dict[str, Any] = {"model": "kite", "messages": HELLO, "seed": 3, "temperature": 1, "extra_body": ENDLESS}
    client = face.client(tess)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == client.chat.completions.create(**asked).choices[0].message.content
    assert chunks[-1].usage is not None
    assert {chunk.model for chunk in chunks} == {"kite-2"}
    without = list(client.chat.completions.create(**asked, stream=True))
    assert all(chunk.choices for chunk in without)


def test_several_replies_with_logprobs_are_put_together_as_the_server_gives_them(face: Face, tess: User) -> None:
    asked = {"n": 3, "seed": 5, "temperature": 1, "logprobs": True, "top_logprobs": 2, "max_tokens": 6, **ENDLESS}
    through = face.chat(tess, **asked).json()
    direct = face.models.chat(model="kite-2", **asked).json()
    assert through["choices"] == direct["choices"]
    assert through["usage"] == direct["usage"]


def test_text_goes_on_from_a_prompt_whole_and_streamed(face: Face, tess: User) -> None:
    client = face.client(tess)
    asked: dict[str, Any] = {"model": "kite", "prompt": ["the cat", "the sky"], "max_tokens": 5, "logprobs": 1}
    whole = client.completions.create(**asked, extra_body=ENDLESS)
    direct = face.models.post(TEXT, {**asked, "model": "kite-2", "temperature": 0, **ENDLESS}).json()
    assert [choice.text for choice in whole.choices] == [choice["text"] for choice in direct["choices"]]
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.tokens == direct["choices"][0]["logprobs"]["tokens"]
    streamed = client.completions.create(model="kite", prompt="the cat", max_tokens=5, stream=True, extra_body=ENDLESS)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text


def test_models_are_listed_and_told_one_by_one(face: Face, tess: User, mo: User) -> None:
    client = face.client(tess)
    assert [(model.id, model.owned_by) for model in client.models.list()] == [("kite", "Kite")]
    assert client.models.retrieve("kite").id == "kite"
    assert face.client(mo).models.retrieve("kite-2").id == "kite-2"
    with pytest.raises(openai.NotFoundError, match="There is no model of this name that you may use"):
        client.models.retrieve("kite-2")


# ---------------------------------------------------------------------------------------------- the project's settings


def test_the_projects_settings_are_the_defaults_and_its_longest_reply_is_the_cap(face: Face, tess: User) -> None:
    Project.objects.filter(pk=face.project.pk).update(max_new_tokens=10)
    for body in ({}, {"max_tokens": 30}, {"max_completion_tokens": 50}, {"max_tokens": None}):
        answer = face.chat(tess, **body, **ENDLESS).json()
        assert answer["usage"]["completion_tokens"] == 10
        assert answer["choices"][0]["finish_reason"] == "length"
    assert face.chat(tess, max_tokens=4, **ENDLESS).json()["usage"]["completion_tokens"] == 4
    text = {"model": "kite", "prompt": "the cat", **ENDLESS}
    assert face.send(tess, TEXT, text).json()["usage"]["completion_tokens"] == 10
    greedy = {face.chat(tess, seed=seed, **ENDLESS).json()["choices"][0]["message"]["content"] for seed in range(3)}
    assert len(greedy) == 1  # the project's temperature is 0
    warm = {face.chat(tess, seed=i, temperature=2, **ENDLESS).text.split('"choices"')[1] for i in range(3)}
    assert len(warm) == 3


def test_the_projects_system_prompt_goes_first_unless_the_caller_has_one(face: Face, tess: User) -> None:
    Project.objects.filter(pk=face.project.pk).update(system_prompt="no never")
    plain = face.chat(tess, **ENDLESS).json()["usage"]["prompt_tokens"]
    assert plain > len(existing(existing(face.models.pool.get("kite-2")).chat).prompt([])) + 8
    for role in ("system", "developer"):
        own = face.chat(tess, messages=[{"role": role, "content": "a"}, *HELLO], **ENDLESS)
        assert own.json()["usage"]["prompt_tokens"] < plain


def test_one_conversation_is_answered_by_one_model_beside_a_canary(
    face: Face, tess: User, folders: dict[str, Path]
) -> None:
    put_live(face, folders["two"], share=0.5)
    answered = {}
    for i in range(12):
        turns = [{"role": "user", "content": f"number {i}"}]
        models = set()
        for _ in range(3):
            models.add(face.chat(tess, messages=turns, max_tokens=2).json()["model"])
            turns += [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
        assert len(models) == 1
        answered[i] = models.pop()
    assert set(answered.values()) == {"kite-2", "kite-3"}
    for_whom = {face.chat(tess, user=f"u{i}", max_tokens=2).json()["model"] for i in range(12)}
    assert for_whom == {"kite-2", "kite-3"}


def test_a_system_prompt_that_the_template_refuses_is_folded_and_the_reply_says_so(
    face: Face, tess: User, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["two"], tmp_path / "gemma")
    (tmp_path / "gemma" / "chat_template.jinja").write_text(ALTERNATES)
    put_live(face, tmp_path / "gemma")
    Project.objects.filter(pk=face.project.pk).update(system_prompt="Be brief.")
    assert face.chat(tess, max_tokens=2).json()["system_folded"] is True
    assert face.chat(tess, max_tokens=2, stream=True).text.count('"system_folded": true') == 1
    error = error_of(face.chat(tess, messages=[*HELLO, *HELLO]), 400)
    assert "Conversation roles must alternate user/assistant" in error["message"]
    assert (error["param"], error["code"]) == ("messages", "template_refused")


# ------------------------------------------------------------------------------------------------------------ refusals

SOUND = {"model": "kite", "messages": HELLO}
BAD: dict[str, tuple[Any, str, str]] = {
    "no JSON": (b"{no", "invalid_json", ""),
    "not UTF-8": (b'{"model": "\xff"}', "invalid_json", ""),
    "nested": (b"[" * 100_000, "invalid_json", ""),
    "a form": (b"model=kite&messages=a", "invalid_json", ""),
    "nothing": (b"", "invalid_json", ""),
    "a list": ([], "invalid_type", ""),
    "many digits": (b'{"model": "kite", "max_tokens": ' + b"9" * 10_000 + b"}", "invalid_json", ""),
    "a huge number": ({**SOUND, "seed": 10**30}, "invalid_value", "seed"),
    "NaN": (b'{"model": "kite", "messages": [], "temperature": NaN}', "invalid_value", "temperature"),
    "Infinity": (b'{"model": "kite", "messages": [], "temperature": -Infinity}', "invalid_value", "temperature"),
    "1e999": (b'{"model": "kite", "messages": [], "top_p": 1e999}', "invalid_value", "top_p"),
    "NUL in the model": ({**SOUND, "model": "ki\0te"}, "invalid_value", "model"),
    "half a character": (
        b'{"model": "kite", "messages": [{"role": "user", "content": "hi \\ud800"}]}', "invalid_value",
        "messages.0.content",
    ),
    "half a character in the model": (b'{"model": "\\udc00", "messages": []}', "invalid_value", "model"),
    "no model": ({"messages": HELLO}, "missing_required_parameter", "model"),
    "a number as model": ({**SOUND, "model": 5}, "invalid_type", "model"),
    "no messages": ({"model": "kite"}, "missing_required_parameter", "messages"),
    "no list of messages": ({**SOUND, "messages": "hi"}, "invalid_type", "messages"),
    "a number as text": ({**SOUND, "temperature": "1"}, "invalid_type", "temperature"),
    "out of range": ({**SOUND, "top_p": 0}, "invalid_value", "top_p"),
    "too many replies": ({**SOUND, "n": 17}, "invalid_value", "n"),
    "tools": ({**SOUND, "tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
    "JSON mode": ({**SOUND, "response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
    "min_p": ({**SOUND, "min_p": 0.1}, "unsupported_parameter", "min_p"),
    "a misspelling": ({**SOUND, "temprature": 1}, "unknown_parameter", "temprature"),
    "too long": (
        {**SOUND, "messages": [{"role": "user", "content": "cat " * 100}]}, "context_length_exceeded", "messages",
    ),
}  # fmt: skip


def test_what_cannot_be_answered_is_400_with_parameter_and_reason(face: Face, tess: User) -> None:
    for name, (body, code, param) in BAD.items():
        error = error_of(face.send(tess, CHAT, body), 400)
        assert (error["code"], error["param"] or "") == (code, param), (name, error)
        assert error["type"] == "invalid_request_error"


def test_null_stands_for_the_default_through_the_site_too(face: Face, tess: User) -> None:
    names = ["temperature", "top_p", "n", "seed", "stop", "stream", "logprobs", "tools", "response_format", "user"]
    assert face.chat(tess, **dict.fromkeys(names)).status_code == 200


def test_a_body_that_is_too_large_is_413(face: Face, tess: User) -> None:
    big = json.dumps({"model": "kite", "messages": [{"role": "user", "content": "a" * (11 << 20)}]}).encode()
    assert error_of(face.send(tess, CHAT, big), 413)["code"] == "request_too_large"
    bigger = big + b" " * (4 << 20)
    assert error_of(face.send(tess, CHAT, bigger), 413)["code"] == "request_too_large"
    direct = face.models.post(CHAT, big)
    assert direct.status_code == 413
    assert direct.json() == face.send(tess, CHAT, big).json()
    below = json.dumps({"model": "kite", "messages": [{"role": "user", "content": "a" * 4096}]}).encode()
    below += b" " * (9 << 20)
    for answer in (face.send(tess, CHAT, below), face.models.post(CHAT, below.replace(b"kite", b"kite-2"))):
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_json_is_read_whatever_its_content_type(face: Face, tess: User) -> None:
    body = json.dumps({**SOUND, "max_tokens": 2}).encode()
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"):
        assert face.send(tess, CHAT, body, **{"Content-Type": kind}).status_code == 200
    parts = face.send(tess, CHAT, b"--x\r\n\r\n--x--", **{"Content-Type": "multipart/form-data; boundary=x"})
    assert error_of(parts, 400)["code"] == "invalid_json"


def test_every_other_address_and_method_answers_json(face: Face, tess: User) -> None:
    for person in (tess, None):
        for path in (
            "/v1",
            "/v1/",
            "/v1/embeddings",
            "/v1/responses",
            "/v1/chat/completions/",
            "/v1/models/",
            "/v1/%00",
        ):
            for method in ("GET", "POST", "DELETE"):
                assert error_of(face.send(person, path, method=method), 404)["code"] == "not_found"
        wrong = face.send(person, "/v1/models", {}, method="POST")
        assert error_of(wrong, 405)["code"] == "method_not_allowed"
        assert wrong.headers["allow"] == "GET, HEAD, OPTIONS"
        error_of(face.send(person, CHAT, method="GET"), 405)
        options = face.send(person, CHAT, method="OPTIONS")
        assert (options.status_code, options.headers["allow"]) == (204, "POST, OPTIONS")
    assert "access-control-allow-origin" not in options.headers
    assert error_of(face.send(tess, "/v1/models/%00", method="GET"), 404)["code"] == "model_not_found"
    assert face.send(tess, "/v1/models", method="HEAD").status_code == 200


def test_pages_of_named_origins_may_call_it_from_a_browser(face: Face, tess: User, settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example"]
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    preflight = face.send(None, CHAT, method="OPTIONS", Origin="https://app.example", **ask)
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    answer = face.send(tess, CHAT, {**SOUND, "max_tokens": 2}, Origin="https://app.example")
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert error_of(face.send(None, CHAT, SOUND, Origin="https://app.example"), 401)
    other = face.send(None, CHAT, method="OPTIONS", Origin="https://evil.example", **ask)
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"] == "Origin"


# ------------------------------------------------------------------------------------------------------------ who may


def test_without_a_token_everything_is_401_before_anything_else(face: Face, tess: User) -> None:
    for path, method in ((CHAT, "POST"), (TEXT, "POST"), ("/v1/models", "GET"), ("/v1/models/kite", "GET")):
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Bearer \xe9" + "a" * 30}):
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = httpx.request(method, face.url + path, headers=raw, content=b"{no")  # type: ignore[arg-type]
            assert error_of(answer, 401)["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_stranger_cannot_tell_a_project_that_exists_from_one_that_does_not(
    face: Face, stranger: User, tess: User, project: Project
) -> None:
    asked = ("kite", "kite-2", "kite-1", "nothing", "nothing-2", "kite-٢", "kite-²", "kite-02", "kite-99999999999999")
    told = {error_of(face.chat(stranger, model=name), 404)["message"] for name in asked}
    assert len(told) == 1
    assert "kite" not in told.pop()
    for name in ("kite-2", "kite-1", "nothing", "kite-٢"):
        error = error_of(face.chat(tess, model=name), 404)
        assert error["message"].endswith("You may use kite.")
        assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_a_manager_talks_to_any_model_of_the_project_but_not_to_a_tokenizer(face: Face, mo: User) -> None:
    assert face.chat(mo, model="kite-2", max_tokens=2).json()["model"] == "kite-2"
    error_of(face.chat(mo, model="kite-1"), 404)


# ------------------------------------------------------------------------------------------------------------ failures


def test_a_model_that_the_server_has_forgotten_is_loaded_again(face: Face, tess: User) -> None:
    for stream in (False, True):
        face.models.post("/v1/unload_lora_adapter", {"lora_name": "kite-2"})
        assert face.chat(tess, max_tokens=2, stream=stream).status_code == 200


def test_a_damaged_model_is_503_without_a_path(face: Face, tess: User, tmp_path: Path) -> None:
    face.models.post("/v1/unload_lora_adapter", {"lora_name": "kite-2"})
    for weights in (tmp_path / "artefacts").rglob("model.safetensors"):
        weights.write_bytes(b"x")
    answer = face.chat(tess)
    error = error_of(answer, 503)
    assert (error["type"], error["code"]) == ("server_error", "model_unavailable")
    assert "/" not in error["message"]
    assert int(answer.headers["retry-after"]) > 0


def test_a_model_server_that_is_down_is_503_without_its_address(face: Face, tess: User, settings: Any) -> None:
    settings.MODEL_SERVER_URL = "http://127.0.0.1:9"
    for path, body in ((CHAT, SOUND), (CHAT, {**SOUND, "stream": True}), (TEXT, {"model": "kite", "prompt": "a"})):
        answer = face.send(tess, path, body)
        error = error_of(answer, 503)
        assert error["code"] == "model_server_unavailable"
        assert "127.0.0.1" not in error["message"]
        assert "MODEL_SERVER" not in error["message"]
        assert int(answer.headers["retry-after"]) > 0


def test_a_whole_reply_may_take_longer_than_a_connection_may_be_silent(
    face: Face, tess: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.model_server.completions.SILENCE_SECONDS", 1.0)
    monkeypatch.setattr("training.serve.generation.PING_SECONDS", 0.1)
    engine = existing(face.models.pool.get("kite-2")).engine
    step, go, steps = engine.step, threading.Event(), []
    engine.step = lambda: (steps.append(0), go.wait(0.15), step())[2]
    answer = face.chat(tess, max_tokens=16, **ENDLESS)  # 16 x 0.15 s
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 16


def test_a_server_that_falls_silent_is_told_from_one_that_works(
    face: Face, tess: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.model_server.completions.SILENCE_SECONDS", 0.3)
    engine = existing(face.models.pool.get("kite-2")).engine
    step, go = engine.step, threading.Event()
    engine.step = lambda: (go.wait(30), step())[1]
    error = error_of(face.chat(tess, **ENDLESS), 503)
    assert error["code"] == "reply_cut_off"
    go.set()


def test_a_client_that_leaves_ends_its_reply_on_the_model_server(face: Face, tess: User) -> None:
    Project.objects.filter(pk=face.project.pk).update(max_new_tokens=40)
    engine, scheduler = existing(face.models.pool.get("kite-2")).engine, face.models.scheduler
    step, held = engine.step, threading.Event()
    engine.step = lambda: (held.wait(0.05), step())[1]
    body = {**SOUND, "n": 16, **ENDLESS}
    headers = {"Authorization": f"Bearer {face.token(tess)}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(face.url + CHAT, json=body, headers=headers, timeout=1.5)
    until(lambda: scheduler.running + scheduler.waiting == 0)
    with httpx.stream("POST", face.url + CHAT, json={**body, "stream": True}, headers=headers) as stream:
        next(stream.iter_lines())
        until(lambda: scheduler.running > 0)
    until(lambda: scheduler.running + scheduler.waiting == 0)
    assert scheduler.tokens < 2 * 16 * 40
    until(lambda: limits.under.requests == 0)


# -------------------------------------------------------------------------------------------------------------- limits


def test_one_person_has_so_many_replies_at_once_and_others_are_not_kept_waiting(
    face: Face, tess: User, ann: User, settings: Any
) -> None:
    settings.API_REPLIES_AT_ONCE = 6
    Project.objects.filter(pk=face.project.pk).update(max_new_tokens=40)
    engine = existing(face.models.pool.get("kite-2")).engine
    step, go = engine.step, threading.Event()
    engine.step = lambda: (go.wait(0.05), step())[1]
    face.token(tess)
    with ThreadPoolExecutor(2) as threads:
        many = [threads.submit(face.chat, tess, n=3, **ENDLESS) for _ in range(2)]
        until(lambda: face.models.scheduler.running + face.models.scheduler.waiting == 6)
        refused = face.chat(tess)
        assert error_of(refused, 429)["code"] == "rate_limit_exceeded"
        assert int(refused.headers["retry-after"]) > 0
        assert face.chat(ann, max_tokens=2).status_code == 200
        assert not any(request.done() for request in many)
        engine.step = step
        go.set()
        assert [request.result().status_code for request in many] == [200, 200]
    until(lambda: limits.under.requests == 0)
    assert face.chat(tess, n=6, max_tokens=2).status_code == 200  # all places were given back


@pytest.mark.slow
def test_two_hundred_streams_at_once_get_replies_or_429_and_pages_stay_up(face: Face, tess: User, ann: User) -> None:
    keys = [face.token(tess), face.token(ann)]

    def ask(i: int) -> tuple[int, str, str]:
        headers = {"Authorization": f"Bearer {keys[i % 2]}"}
        answer = httpx.post(face.url + CHAT, json={**SOUND, "stream": True}, headers=headers, timeout=120)
        return answer.status_code, answer.headers["content-type"], answer.headers.get("retry-after", "")

    with ThreadPoolExecutor(200) as threads:
        asked = [threads.submit(ask, i) for i in range(200)]
        pages = [httpx.get(face.url + "/accounts/login/", timeout=60).status_code for _ in range(3)]
        told = [request.result() for request in asked]
    assert set(pages) == {200}
    assert {status for status, _, _ in told} == {200, 429}
    assert all(kind == "application/json" and wait for status, kind, wait in told if status == 429)
    assert sum(status == 200 for status, _, _ in told) >= 32
    until(lambda: limits.under.requests == 0)


def test_the_count_of_replies_holds_over_processes_lapses_and_does_without_redis(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, third = (limits.ReplyCount(977_001, 2) for _ in range(3))
    assert one.take(4)
    assert other.take(4)
    assert not third.take(4)
    other.give()
    assert third.take(4)
    third.give()
    one.give()
    monkeypatch.setattr(limits, "LEASE_SECONDS", -1)
    assert other.take(4)
    monkeypatch.undo()
    assert limits.ReplyCount(977_001, 4).take(4)  # what a dead process held has lapsed
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    live_client.cache_clear()
    try:
        assert one.take(2)
        assert not other.take(2)
        one.give()
        assert other.take(2)
        other.give()
    finally:
        live_client.cache_clear()
