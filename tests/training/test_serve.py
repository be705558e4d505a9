"""The model server over real HTTP, with the official client and by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
import uvicorn
from peft import LoraConfig, get_peft_model

from tests.training.toys import run_folder, start_child, toy_policy, toy_tokenizer, turns
from training.chatformat import ChatFormat
from training.contract import InputError
from training.engine import Engine, Request, SamplingParams
from training.models import Compute, load_causal, save_model
from training.serve.app import build_app
from training.serve.pool import ModelPool
from training.serve.scheduler import Scheduler

COMPUTE = Compute(torch.device("cpu"), torch.float32)
TOKEN = "secret"
HELLO = turns("the cat sat")
ENDLESS = {"ignore_eos": True}  # an extension: without it a random model may end at once


@dataclass
class Site:
    url: str
    pool: ModelPool
    scheduler: Scheduler
    folders: dict[str, Path]

    def post(self, path: str, body: Any, token: str = TOKEN) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def chat(self, **body: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", {"model": "toy", "messages": HELLO, "max_tokens": 8, **body})

    def load(self, name: str, folder: Path | str) -> httpx.Response:
        return self.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key=TOKEN, max_retries=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    found = {name: toy_policy(top / name, seed) for seed, name in enumerate(("toy", "other"))}
    model = get_peft_model(
        load_causal(str(found["toy"]), COMPUTE), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    save_model(model, toy_tokenizer(), top / "adapter", ChatFormat(toy_tokenizer()).stop_ids)
    return found | {"adapter": top / "adapter"}


@pytest.fixture
def site(folders: dict[str, Path]) -> Iterator[Site]:
    pool = ModelPool(COMPUTE, slots=2, most=2)
    pool.load("toy", str(folders["toy"]))
    scheduler = Scheduler()
    scheduler.start()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_app(pool, scheduler, token=TOKEN), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", pool, scheduler, folders)
    server.should_exit = True
    thread.join()
    scheduler.stop()
    listener.close()


def until(true: Callable[[], bool]) -> None:
    """Waits for something another thread does; fails after a time no machine needs."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def greedy(folder: Path, tokens: int = 8) -> str:
    """What the model of a folder replies to HELLO, generated apart from the server."""
    chat = ChatFormat(toy_tokenizer())
    engine = Engine(load_causal(str(folder), COMPUTE), toy_tokenizer(), slots=1)
    prompt = toy_tokenizer().apply_chat_template(HELLO, add_generation_prompt=True)["input_ids"]
    sampling = SamplingParams(temperature=0, max_new_tokens=tokens, stop_ids=frozenset(chat.stop_ids))
    return engine.generate([Request(prompt, sampling)])[0].text


# -------------------------------------------------------------------------------------------------------------- talking


def test_the_official_client_gets_a_reply_with_usage(site: Site) -> None:
    reply = site.client.chat.completions.create(model="toy", messages=HELLO, temperature=0, max_tokens=8)
    assert reply.choices[0].message.content == greedy(site.folders["toy"])
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason in {"stop", "length"}
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert [model.id for model in site.client.models.list()] == ["toy"]


def test_the_official_client_streams_the_same_reply_and_its_usage(site: Site) -> None:
    stream = site.client.chat.completions.create(
        model="toy", messages=HELLO, seed=3, max_tokens=30, stream=True, stream_options={"include_usage": True},
        extra_body=ENDLESS,
    )  # fmt: skip
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    whole = site.chat(seed=3, max_tokens=30, **ENDLESS).json()
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 30
    assert chunks[-1].choices == []


def test_a_stream_ends_with_done_and_each_event_is_whole_utf8(site: Site) -> None:
    lines = site.chat(seed=1, max_tokens=30, stream=True, **ENDLESS).content.split(b"\n\n")
    assert lines[-2:] == [b"data: [DONE]", b""]
    texts = [json.loads(line[6:].decode())["choices"][0]["delta"].get("content", "") for line in lines[:-2]]
    assert "".join(texts).encode("utf-8")


def test_n_replies_differ_and_a_seed_repeats_them(site: Site) -> None:
    first, again = (site.chat(n=3, seed=5, max_tokens=20, **ENDLESS).json()["choices"] for _ in range(2))
    assert [choice["index"] for choice in first] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in first}) == 3
    assert first == again
    assert site.chat(n=3, seed=6, max_tokens=20, **ENDLESS).json()["choices"] != first


def test_a_stop_string_ends_the_reply_before_it(site: Site) -> None:
    whole = site.chat(seed=5, max_tokens=30, **ENDLESS).json()["choices"][0]["message"]["content"]
    stop = whole[4:6]
    choice = site.chat(seed=5, max_tokens=30, stop=[stop], **ENDLESS).json()["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_logprobs_come_with_alternatives_in_both_forms(site: Site) -> None:
    options = {"temperature": 0, "logprobs": True, "top_logprobs": 2, "max_tokens": 4, **ENDLESS}
    whole = site.chat(**options).json()["choices"][0]["logprobs"]["content"]
    assert len(whole) == 4
    for token in whole:
        assert token["logprob"] < 0
        assert token["top_logprobs"][0]["logprob"] == pytest.approx(token["logprob"])
        assert bytes(token["bytes"]).decode() == token["token"]
    streamed = []
    for line in site.chat(stream=True, **options).text.split("\n\n")[:-2]:
        streamed += (json.loads(line[6:])["choices"][0]["logprobs"] or {"content": []})["content"]
    assert streamed == whole


def test_text_completions_take_text_tokens_and_several_prompts(site: Site) -> None:
    ids = toy_tokenizer().encode("the cat")
    answer = site.client.completions.create(model="toy", prompt=["the cat", "the sky"], max_tokens=5, temperature=0)
    by_ids = site.client.completions.create(model="toy", prompt=ids, max_tokens=5, temperature=0, logprobs=1)
    assert len(answer.choices) == 2
    assert answer.choices[0].text == by_ids.choices[0].text
    assert len(by_ids.choices[0].logprobs.token_logprobs) == by_ids.usage.completion_tokens
    streamed = site.client.completions.create(model="toy", prompt="the cat", max_tokens=5, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text


def test_more_requests_than_slots_wait_their_turn_and_all_are_answered(site: Site) -> None:
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda i: site.chat(seed=i, max_tokens=30, **ENDLESS), range(12)))
    assert {a.status_code for a in answers} == {200}
    assert {a.json()["usage"]["completion_tokens"] for a in answers} == {30}


def test_a_client_that_leaves_frees_its_slot(site: Site) -> None:
    body = {"model": "toy", "messages": HELLO, "max_tokens": 40, "n": 64, "stream": True, **ENDLESS}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    engine = site.pool.get("toy").engine
    held = threading.Event()
    step = engine.step
    engine.step = lambda: (held.wait(0.02), step())[1]  # too slow to end before the client has left
    with httpx.stream("POST", site.url + "/v1/chat/completions", json=body, headers=headers) as stream:
        chunks = stream.iter_bytes()  # kept: the connection closes with it
        next(chunks)
        until(lambda: site.scheduler.running > 0)
    until(lambda: site.scheduler.running + site.scheduler.waiting == 0)
    assert site.scheduler.tokens < 64 * 40


def test_a_client_that_leaves_an_unstreamed_request_frees_its_slot_too(site: Site) -> None:
    engine = site.pool.get("toy").engine
    held = threading.Event()
    step = engine.step
    engine.step = lambda: (held.wait(0.02), step())[1]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            site.url + "/v1/chat/completions", timeout=0.5, headers={"Authorization": f"Bearer {TOKEN}"},
            json={"model": "toy", "messages": HELLO, "max_tokens": 40, "n": 64, **ENDLESS},
        )  # fmt: skip
    until(lambda: site.scheduler.running + site.scheduler.waiting == 0)
    assert site.scheduler.tokens < 64 * 40


# --------------------------------------------------------------------------------------------------------------- models


def test_an_adapter_folder_is_served_beside_its_base(site: Site) -> None:
    assert site.load("tuned", site.folders["adapter"]).status_code == 200
    tuned = site.chat(model="tuned", temperature=0).json()["choices"][0]["message"]["content"]
    assert tuned == greedy(site.folders["adapter"])
    assert tuned != greedy(site.folders["toy"])
    assert site.chat(temperature=0).json()["choices"][0]["message"]["content"] == greedy(site.folders["toy"])


def test_a_name_moves_to_another_model_while_replies_under_way_end_on_the_old_one(site: Site) -> None:
    engine = site.pool.get("toy").engine
    expected = site.chat(seed=1, max_tokens=40, **ENDLESS).json()["choices"]
    go = threading.Event()
    step = engine.step
    engine.step = lambda: (engine.running and go.wait(30), step())[1]  # stands still once it runs
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(site.chat, seed=1, max_tokens=40, **ENDLESS)
        until(lambda: engine.running > 0)
        assert site.load("toy", site.folders["other"]).status_code == 200
        engine.step = step
        go.set()
        assert answer.result().json()["choices"] == expected
    assert site.chat(temperature=0).json()["choices"][0]["message"]["content"] == greedy(site.folders["other"])
    assert site.load("toy", site.folders["toy"]).status_code == 200
    assert site.pool.get("toy").engine is engine  # the way back needs no loading


@pytest.mark.parametrize(
    "damage", ["truncated", "no weights", "garbled config", "pickle only", "nan", "missing", "reward"]
)
def test_a_bad_folder_is_refused_with_a_sentence_and_what_is_live_stays(
    site: Site, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "bad"
    if damage != "missing":
        shutil.copytree(site.folders["toy"], folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "garbled config":
        config.write_text("{")
    elif damage == "pickle only":
        weights.unlink()
        torch.save({}, folder / "pytorch_model.bin")
    elif damage == "nan":
        model = load_causal(str(folder), COMPUTE)
        torch.nn.init.constant_(model.model.norm.weight, float("nan"))
        model.save_pretrained(folder)
    elif damage == "reward":
        config.write_text(config.read_text().replace("LlamaForCausalLM", "LlamaForSequenceClassification"))
    answer = site.load("toy", folder)
    assert answer.status_code == 400
    assert str(folder) in answer.json()["error"]["message"]
    assert site.chat(temperature=0).json()["choices"][0]["message"]["content"] == greedy(site.folders["toy"])


def test_the_least_recently_used_model_leaves_for_one_more(site: Site) -> None:
    site.load("other", site.folders["other"])
    assert site.chat().status_code == 200  # so `other` is the one used longest ago
    site.load("tuned", site.folders["adapter"])
    assert set(site.pool.names()) == {"toy", "tuned"}


def test_unloading_takes_the_name_away(site: Site) -> None:
    assert site.post("/v1/unload_lora_adapter", {"lora_name": "toy"}).status_code == 200
    assert site.chat().status_code == 404
    assert site.post("/v1/unload_lora_adapter", {"lora_name": "toy"}).status_code == 404
    health = httpx.get(site.url + "/health").json()
    assert health["status"] == "ok"
    assert "no model yet" in health["models"]


# ------------------------------------------------------------------------------------------------------------- refusals

BAD = {
    "garbage": (b"{not json", "not valid JSON"),
    "not utf-8": (b'{"model": "\xff"}', "not valid JSON"),
    "nested": (b"[" * 100_000, "not valid JSON"),
    "a list": (b"[]", "body|valid dictionary"),
    "nul": ({"model": "toy", "messages": turns("a\0b")}, "NUL"),
    "half surrogate": (b'{"model": "toy", "messages": [{"role": "user", "content": "\\ud83d"}]}', "surrogate"),
    "no messages": ({"model": "toy", "messages": []}, "messages"),
    "empty message": ({"model": "toy", "messages": turns(" ")}, "last message is empty"),
    "unknown role": ({"model": "toy", "messages": [{"role": "robot", "content": "a"}]}, "role"),
    "image": ({"model": "toy", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type"),
    "temperature": ({"model": "toy", "messages": HELLO, "temperature": -1}, "temperature"),
    "nan": (b'{"model": "toy", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}', "temperature"),
    "penalty": ({"model": "toy", "messages": HELLO, "presence_penalty": 1.0}, "presence_penalty"),
    "too long": ({"model": "toy", "messages": turns("cat " * 100)}, "context of 64"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_answered_is_400_with_the_reason_in_openais_shape(site: Site, name: str) -> None:
    body, reason = BAD[name]
    for path in ("/v1/chat/completions",):
        answer = site.post(path, body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert any(part in error["message"] for part in reason.split("|"))
        assert (error["type"], error["code"]) == ("BadRequestError", 400)


def test_the_official_client_raises_the_right_errors(site: Site) -> None:
    with pytest.raises(openai.NotFoundError, match="`nobody` does not exist"):
        site.client.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="context of 64"):
        site.client.chat.completions.create(model="toy", messages=turns("cat " * 100), stream=True)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=site.url + "/v1", api_key="wrong", max_retries=0).models.list()


def test_unknown_paths_and_methods_have_openais_error_shape_too(site: Site) -> None:
    assert site.post("/v1/nothing", {}).json()["error"]["code"] == 404
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(site.url + "/v1/chat/completions", headers=headers).json()["error"]["code"] == 405


def test_a_model_that_breaks_down_while_serving_is_a_500_and_the_server_goes_on(site: Site) -> None:
    engine = site.pool.get("toy").engine
    norm = engine._forward.norm
    engine._forward.norm = norm * float("nan")
    answer = site.chat()
    assert answer.status_code == 500
    assert "not finite" in answer.json()["error"]["message"]
    engine._forward.norm = norm
    assert site.chat().status_code == 200


# -------------------------------------------------------------------------------------------------------------- running


def test_metrics_count_requests_and_tokens(site: Site) -> None:
    site.chat(max_tokens=7, stream=True, **ENDLESS)
    site.chat(model="nobody")
    text = httpx.get(site.url + "/metrics").text
    assert 'tutelage_generated_tokens_total{model="toy"} 7.0' in text
    assert 'tutelage_requests_total{path="/v1/chat/completions",status="404"} 1.0' in text
    assert "tutelage_time_to_first_token_seconds_count 1.0" in text
    for name in ("requests_running", "requests_waiting", "tokens_per_second"):
        assert f"tutelage_{name} " in text


def test_a_base_model_without_chat_template_completes_text_only(site: Site, tmp_path: Path) -> None:
    shutil.copytree(site.folders["toy"], tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    assert site.load("base", tmp_path / "base").status_code == 200
    assert "no chat template" in site.chat(model="base").json()["error"]["message"]
    answer = site.post("/v1/completions", {"model": "base", "prompt": "the cat", "max_tokens": 3})
    assert answer.status_code == 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_stage_starts_without_a_model_says_so_and_ends_soon_after_sigterm(tmp_path: Path) -> None:
    port = free_port()
    child = start_child(run_folder(tmp_path / "run", {"stage": "serve", "port": port}))
    try:
        line = child.stdout.readline()
        while "serving on" not in line:
            assert line, child.wait()
            line = child.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line
        assert "no model yet" in line
        until(lambda: healthy(port))
        began = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 143
        assert time.monotonic() - began < 10
    finally:
        child.kill()
        child.stdout.close()


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.ConnectError:
        return False


def test_a_taken_port_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training.__main__ import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        folder = run_folder(tmp_path / "run", {"stage": "serve", "port": port})
        assert main(["serve", str(folder)]) == 1
    assert f"port {port}" in capsys.readouterr().err


def test_a_folder_is_never_looked_for_on_the_hub(tmp_path: Path) -> None:
    pool = ModelPool(COMPUTE, slots=1, most=1)
    with pytest.raises(InputError, match="no such model folder"):
        pool.load("x", "gpt2")
    assert os.environ.get("HF_HUB_OFFLINE") is None or pool.names() == {}


def test_the_thread_that_loads_a_model_ends_so_that_openmp_has_one_team(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[threading.Thread] = []
    monkeypatch.setattr("training.serve.pool.smoke_test", lambda _: computed.append(threading.current_thread()))
    ModelPool(COMPUTE, slots=1, most=1).load("model", str(folders["toy"]))
    assert computed[0] is not threading.current_thread()
    assert not computed[0].is_alive()
