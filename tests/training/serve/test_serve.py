"""The model server over real HTTP, with the official client and by hand.

Over 300 lines: all cases share one running server, which takes seconds to start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.narrowing import existing
from tests.training.serving import COMPUTE, ENDLESS, HELLO, TOKEN, Site, free_port, served, until
from tests.training.toys import ALTERNATES, run_folder, start_child, toy_policy, toy_tokenizer, turns
from training.contract import InputError
from training.data.chat_format import ChatFormat
from training.engine import Engine, EngineRequest, SamplingParams
from training.models.loading import load_causal, save_model
from training.serve.fair import FairQueue
from training.serve.pool import ModelPool


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
    with served(folders) as site:
        yield site


def greedy(folder: Path, tokens: int = 8) -> str:
    """What the model of a folder replies to HELLO, generated apart from the server."""
    chat = ChatFormat(toy_tokenizer())
    engine = Engine(load_causal(str(folder), COMPUTE), toy_tokenizer(), slots=1)
    prompt = toy_tokenizer().apply_chat_template(HELLO, add_generation_prompt=True)["input_ids"]
    sampling = SamplingParams(temperature=0, max_new_tokens=tokens, stop_ids=frozenset(chat.stop_ids))
    return engine.generate([EngineRequest(prompt, sampling)])[0].text


# -------------------------------------------------------------------------------------------------------------- talking


def test_the_official_client_gets_a_reply_with_usage(site: Site) -> None:
    reply = site.client.chat.completions.create(model="toy", messages=HELLO, temperature=0, max_tokens=8)
    assert reply.choices[0].message.content == greedy(site.folders["toy"])
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason in {"stop", "length"}
    assert (
        existing(reply.usage).total_tokens
        == existing(reply.usage).prompt_tokens + existing(reply.usage).completion_tokens
    )
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
    assert existing(chunks[-1].usage).completion_tokens == 30
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
    assert (
        len(existing(existing(by_ids.choices[0].logprobs).token_logprobs)) == existing(by_ids.usage).completion_tokens
    )
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
    engine = existing(site.pool.get("toy")).engine
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
    engine = existing(site.pool.get("toy")).engine
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
    engine = existing(site.pool.get("toy")).engine
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
    assert existing(site.pool.get("toy")).engine is engine  # the way back needs no loading


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
    health = site.get("/health").json()
    assert health["status"] == "ok"
    assert "no model yet" in health["models"]


# ------------------------------------------------------------------------------------------------------------- refusals


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


BAD = {
    "garbage": (b"{not json", "not valid JSON"),
    "not utf-8": (b'{"model": "\xff"}', "not valid JSON"),
    "nested": (b"[" * 100_000, "not valid JSON"),
    "a list": (b"[]", "JSON object"),
    "ten thousand digits": (b'{"model": "toy", "seed": ' + b"9" * 10_000 + b"}", "not valid JSON"),
    "nested in a parameter": ({"model": "toy", "messages": HELLO, "metadata": nested(80)}, "stand inside each other"),
    "nul": ({"model": "toy", "messages": turns("a\0b")}, "NUL"),
    "half surrogate": (b'{"model": "toy", "messages": [{"role": "user", "content": "\\ud83d"}]}', "surrogate"),
    "no messages": ({"model": "toy", "messages": []}, "messages"),
    "empty message": ({"model": "toy", "messages": turns(" ")}, "last message is empty"),
    "unknown role": ({"model": "toy", "messages": [{"role": "robot", "content": "a"}]}, "role"),
    "image": ({"model": "toy", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type"),
    "temperature": ({"model": "toy", "messages": HELLO, "temperature": -1}, "temperature"),
    "nan": (b'{"model": "toy", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}', "temperature"),
    "infinity": (
        b'{"model": "toy", "messages": [{"role": "user", "content": "a"}], "top_p": 1e999}',
        "top_p: NaN and Infinity",
    ),
    "a number as text": ({"model": "toy", "messages": HELLO, "max_tokens": "5"}, "max_tokens"),
    "yes as a number": ({"model": "toy", "messages": HELLO, "n": True}, "n: "),
    "null content": ({"model": "toy", "messages": [{"role": "assistant", "content": None}]}, "content` is null"),
    "tool message": ({"model": "toy", "messages": [{"role": "tool", "content": "4"}]}, "tool messages are not supp"),
    "tool call": (
        {"model": "toy", "messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}]},
        "tool calls are not supported",
    ),
    "stop of numbers": ({"model": "toy", "messages": HELLO, "stop": [1]}, "stop: "),
    "long stop": ({"model": "toy", "messages": HELLO, "stop": "a" * 300}, "stop: "),
    "top_logprobs alone": ({"model": "toy", "messages": HELLO, "top_logprobs": 2}, "top_logprobs: give logprobs"),
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
        assert error["type"] == "invalid_request_error"
        assert error["code"] in {
            "invalid_json", "invalid_type", "invalid_value", "unsupported_parameter", "context_length_exceeded",
        }  # fmt: skip


def test_numbers_that_no_tensor_holds_are_answered_as_any_other(site: Site) -> None:
    huge = site.chat(max_tokens=10**30, top_k=10**30, temperature=0, **ENDLESS)
    assert huge.status_code == 200
    assert huge.json()["choices"][0]["finish_reason"] == "length"
    for prompt in ([10**30], [-1], [[1], [5000]]):
        answer = site.post("/v1/completions", {"model": "toy", "prompt": prompt})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_the_official_client_raises_the_right_errors(site: Site) -> None:
    with pytest.raises(openai.NotFoundError, match="`nobody` does not exist"):
        site.client.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="context of 64"):
        site.client.chat.completions.create(model="toy", messages=cast("Any", turns("cat " * 100)), stream=True)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=site.url + "/v1", api_key="wrong", max_retries=0).models.list()


def test_unknown_paths_and_methods_have_openais_error_shape_too(site: Site) -> None:
    nothing, slash = site.post("/v1/nothing", {}), site.post("/v1/completions/", {})
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "not_found")
    assert (slash.status_code, slash.json()["error"]["code"]) == (404, "not_found")
    wrong = httpx.get(site.url + "/v1/chat/completions", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_a_model_that_breaks_down_while_serving_is_a_500_and_the_server_goes_on(site: Site) -> None:
    engine = existing(site.pool.get("toy")).engine
    norm = engine._forward.norm  # type: ignore[attr-defined]
    engine._forward.norm = norm * float("nan")  # type: ignore[attr-defined]
    answer = site.chat()
    assert answer.status_code == 500
    assert "not finite" in answer.json()["error"]["message"]
    engine._forward.norm = norm  # type: ignore[attr-defined]
    assert site.chat().status_code == 200


UNSUPPORTED = {
    "tools": [{"type": "function", "function": {"name": "now"}}],
    "tool_choice": "required",
    "functions": [{"name": "now"}],
    "function_call": {"name": "now"},
    "response_format": {"type": "json_object"},
    "structured_outputs": {"choice": ["a"]},
    "guided_json": {"type": "object"},
    "guided_choice": ["a", "b"],
    "grammar": "root ::= a",
    "logit_bias": {"5": -100},
    "min_p": 0.1,
    "presence_penalty": 1.0,
    "frequency_penalty": -0.5,
    "repetition_penalty": 1.3,
    "stop_token_ids": [28],
    "min_tokens": 4,
    "echo": True,
    "suffix": "the end",
    "best_of": 3,
    "use_beam_search": True,
    "prompt_logprobs": 1,
    "continue_final_message": True,
    "chat_template": "{{ messages }}",
    "reasoning_effort": "high",
    "modalities": ["text", "audio"],
    "skip_special_tokens": False,
    "foo": 1,
}


@pytest.mark.parametrize(
    ("path", "question"), [("/v1/chat/completions", {"messages": HELLO}), ("/v1/completions", {"prompt": "a"})]
)
def test_what_is_not_supported_is_refused_by_name(site: Site, path: str, question: dict[str, Any]) -> None:
    for name, value in UNSUPPORTED.items():
        answer = site.post(path, {"model": "toy", **question, name: value})
        assert answer.status_code == 400, name
        error = answer.json()["error"]
        assert (error["param"], error["message"].split(":")[0]) == (name, name)
        assert error["code"] == ("unknown_parameter" if name == "foo" else "unsupported_parameter")


NEUTRAL: dict[str, Any] = {
    "tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "logit_bias": {}, "min_p": 0.0,
    "presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "best_of": 1, "stop_token_ids": [],
    "user": "ada", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "parallel_tool_calls": True,
}  # fmt: skip


def test_neutral_values_and_what_changes_no_reply_are_accepted(site: Site) -> None:
    assert site.chat(**NEUTRAL).status_code == 200


def test_null_stands_for_the_default_of_every_parameter(site: Site) -> None:
    names = [
        *UNSUPPORTED, *NEUTRAL, "temperature", "top_p", "top_k", "n", "seed", "stop", "stream", "stream_options",
        "logprobs", "top_logprobs", "max_completion_tokens", "ignore_eos",
    ]  # fmt: skip
    plain, with_nulls = (
        site.chat(temperature=0),
        site.chat(**cast("dict[str, Any]", dict.fromkeys(names)) | {"temperature": 0}),
    )
    assert with_nulls.json()["choices"] == plain.json()["choices"]
    text = {"model": "toy", "prompt": "the cat", **dict.fromkeys([*names, "max_tokens", "logprobs"])}
    assert site.post("/v1/completions", text).json()["usage"]["completion_tokens"] <= 16
    options = site.chat(stream=True, stream_options={"include_usage": None})
    assert options.status_code == 200


# ---------------------------------------------------------------------------------------------------- pages and tokens


def test_a_page_of_another_site_can_neither_load_a_model_nor_have_one_speak(site: Site) -> None:
    order = json.dumps({"lora_name": "other", "lora_path": str(site.folders["other"])}).encode()
    key = {"Authorization": f"Bearer {TOKEN}"}

    def send(path: str, body: bytes, **headers: str) -> int:
        return httpx.post(site.url + path, content=body, headers=key | headers).status_code

    blind = {"Content-Type": "text/plain"}
    assert send("/v1/load_lora_adapter", order, **blind) == 415
    page = {"Content-Type": "application/json", "Origin": "https://evil.example"}
    assert send("/v1/load_lora_adapter", order, **page) == 403
    port = site.url.rsplit(":", 1)[1]
    rebound = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
    assert send("/v1/load_lora_adapter", order, **rebound) == 403
    question = json.dumps({"model": "toy", "messages": HELLO, "max_tokens": 2}).encode()
    assert send("/v1/chat/completions", question, Origin="null") == 403
    assert send("/v1/chat/completions", question, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert send("/v1/chat/completions", question, Origin=site.url) == 200
    assert set(site.pool.names()) == {"toy"}


def test_strangers_hear_whether_the_server_is_up_and_nothing_of_its_models(site: Site) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        health = httpx.get(site.url + "/health", headers=headers)
        assert (health.status_code, health.json()) == (200, {"status": "ok"})
        metrics = httpx.get(site.url + "/metrics", headers=headers)
        assert (metrics.status_code, metrics.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "toy" not in metrics.text
    memory = {"used_bytes": 0, "limit_bytes": site.pool.memory.limit}
    assert site.get("/health").json() == {"status": "ok", "models": "toy", "stuck": [], "kv_cache": memory}


def test_every_answer_has_a_request_id_and_a_callers_own_is_kept(site: Site) -> None:
    answers = [site.chat(), site.chat(model="nobody"), site.post("/v1/nothing", {}), site.chat(token="wrong")]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 4
    headers = {"X-Request-Id": "mine-7"}
    assert httpx.get(site.url + "/health", headers=headers).headers["x-request-id"] == "mine-7"
    forged = httpx.get(site.url + "/health", headers={"X-Request-Id": "a b"})
    assert forged.headers["x-request-id"].startswith("req_")


def test_too_many_waiting_replies_are_429_with_a_time_to_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.serve.app.MAX_WAITING", 2)
    answer = site.chat(n=3)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(answer.headers["retry-after"]) > 0


def test_one_model_can_be_asked_for_by_name(site: Site) -> None:
    assert site.client.models.retrieve("toy").id == "toy"
    with pytest.raises(openai.NotFoundError, match="`nobody` does not exist"):
        site.client.models.retrieve("nobody")


def test_a_chat_without_a_limit_ends_at_the_servers_default(folders: dict[str, Path]) -> None:
    with served(folders, default_max_tokens=5) as site:
        body = {"model": "toy", "messages": HELLO, **ENDLESS}
        assert site.post("/v1/chat/completions", body).json()["usage"]["completion_tokens"] == 5
        assert site.chat(max_completion_tokens=7, **ENDLESS).json()["usage"]["completion_tokens"] == 7


# ------------------------------------------------------------------------------------------------------------- fairness


def test_a_person_with_many_replies_does_not_make_another_wait_for_all_of_them(folders: dict[str, Path]) -> None:
    with served(folders, slots=4) as site:
        engine = existing(site.pool.get("toy")).engine
        step, go = engine.step, threading.Event()
        engine.step = lambda: (go.wait(0.05), step())[1]  # slow, so that the first ones still run
        body = {"model": "toy", "messages": HELLO, "max_tokens": 40, **ENDLESS}
        with ThreadPoolExecutor(3) as threads:
            many = [
                threads.submit(site.post, "/v1/chat/completions", {**body, "n": 64, "user": "greedy"}) for _ in "ab"
            ]
            until(lambda: site.scheduler.running == 3 and site.scheduler.waiting > 100)
            few = site.post("/v1/chat/completions", {**body, "max_tokens": 3, "user": "other"})
            assert few.status_code == 200
            assert not any(request.done() for request in many)
            assert site.scheduler.waiting > 100
            engine.step = step
            go.set()
            assert {request.result().status_code for request in many} == {200}


def test_people_take_turns_and_leave_a_quarter_of_the_slots_to_the_next() -> None:
    @dataclass(eq=False)
    class Order:
        user: str
        request: EngineRequest = field(default_factory=lambda: EngineRequest([1]))

    queue: FairQueue[Order] = FairQueue()
    orders = [Order("a") for _ in range(5)] + [Order("b"), Order("c"), Order("")]
    for order in orders:
        queue.push(order)
    taken: list[Order] = []
    while next_order := queue.pop(taken, 8):
        taken.append(next_order)
    assert [order.user for order in taken] == ["a", "b", "c", "", "a", "a", "a", "a"]
    queue = FairQueue()
    for _ in range(8):
        queue.push(Order("a"))
    taken = []
    while next_order := queue.pop(taken, 8):
        taken.append(next_order)
    assert len(taken) == 6
    assert queue.remove(taken[0].request) is None
    waiting = queue.pop([], 8)
    assert waiting is not None
    assert len(queue) == 1


def test_a_reply_that_waits_for_a_slot_says_that_it_is_not_dead(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.serve.generation.PING_SECONDS", 0.05)
    engine = existing(site.pool.get("toy")).engine
    step, go = engine.step, threading.Event()
    engine.step = lambda: (go.wait(10), step())[1]
    body = {"model": "toy", "messages": HELLO, "max_tokens": 2, "stream": True}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.stream("POST", site.url + "/v1/chat/completions", json=body, headers=headers) as stream:
        lines = stream.iter_lines()
        assert ": waiting" in [next(lines) for _ in range(4)]
        go.set()
        assert list(lines)[-2] == "data: [DONE]"


# ------------------------------------------------------------------------------------------------------------ templates

HOSTILE = (
    "{% if messages[0]['content'] == 'BOOM' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}{% endif %}" + ALTERNATES
)


def with_template(folders: dict[str, Path], folder: Path, template: str) -> Path:
    """The toy model with another chat template."""
    shutil.copytree(folders["toy"], folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_template_that_never_ends_stops_nobody_but_its_own_request(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.chat_templates.MAX_SECONDS", 1.5)
    folder = with_template(site.folders, tmp_path / "hostile", HOSTILE)
    assert site.load("hostile", folder).status_code == 200
    with ThreadPoolExecutor(1) as thread:
        boom = thread.submit(site.chat, model="hostile", messages=turns("BOOM"))
        until(lambda: existing(site.pool.get("hostile")).encoder._since is not None)
        assert site.chat().status_code == 200
        assert not boom.done()
        assert httpx.get(site.url + "/health").status_code == 200
        answer = boom.result()
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "template_stopped"
    assert "chat template takes more than" in answer.json()["error"]["message"]
    assert site.chat(model="hostile").status_code == 200


def test_a_template_that_never_ends_is_refused_when_it_is_loaded(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.chat_templates.MAX_SECONDS", 0.5)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    answer = site.load("endless", with_template(site.folders, tmp_path / "endless", endless))
    assert answer.status_code == 400
    assert "chat template" in answer.json()["error"]["message"]
    assert site.chat().status_code == 200


def test_health_tells_an_encoder_that_does_not_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.serve.app.HEALTH_SECONDS", 0.05)
    encoder = existing(site.pool.get("toy")).encoder
    encoder._stuck_seconds = 0.2
    go = threading.Event()
    encoder._thread.submit(encoder._timed, go.wait)
    until(lambda: encoder.stuck)
    answer = site.get("/health")
    assert (answer.status_code, answer.json()["stuck"]) == (503, ["toy"])
    told = httpx.get(site.url + "/health")
    assert (told.status_code, told.json()) == (503, {"status": "failed"})
    go.set()
    until(lambda: not encoder.stuck)
    assert httpx.get(site.url + "/health").status_code == 200


def test_a_system_turn_that_the_template_refuses_goes_before_the_question_and_the_answer_says_so(
    site: Site, tmp_path: Path
) -> None:
    site.load("gemma", with_template(site.folders, tmp_path / "gemma", ALTERNATES))
    system = [{"role": "system", "content": "Be brief."}, *turns("Hi")]
    folded = site.chat(model="gemma", messages=system, temperature=0)
    by_hand = site.chat(model="gemma", messages=turns("Be brief.\n\nHi"), temperature=0)
    assert folded.status_code == 200
    assert folded.json()["system_folded"] is True
    assert folded.json()["choices"] == by_hand.json()["choices"]
    assert "system_folded" not in by_hand.json()
    stream = site.chat(model="gemma", messages=system, stream=True).text
    assert stream.count('"system_folded":true') == 1
    assert "system_folded" not in site.chat(messages=system).json()


def test_turns_that_the_template_refuses_are_400_in_its_own_words(site: Site, tmp_path: Path) -> None:
    site.load("gemma", with_template(site.folders, tmp_path / "gemma", ALTERNATES))
    twice = [*turns("Hi"), *turns("Are you there?")]
    answer = site.chat(model="gemma", messages=twice)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "Conversation roles must alternate user/assistant" in error["message"]
    assert (error["param"], error["code"]) == ("messages", "template_refused")


def test_an_empty_folder_is_refused_with_what_is_missing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answer = site.load("empty", tmp_path / "empty")
    assert answer.status_code == 400
    assert "there is no config.json in this model folder" in answer.json()["error"]["message"]


# -------------------------------------------------------------------------------------------------------------- running


def test_metrics_count_requests_and_tokens(site: Site) -> None:
    site.chat(max_tokens=7, stream=True, **ENDLESS)
    site.chat(model="nobody")
    text = site.get("/metrics").text
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


def test_the_stage_starts_without_a_model_says_so_and_ends_soon_after_sigterm(tmp_path: Path) -> None:
    port = free_port()
    child = start_child(run_folder(tmp_path / "run", {"stage": "serve", "port": port}))
    try:
        line = existing(child.stdout).readline()
        while "serving on" not in line:
            assert line, child.wait()
            line = existing(child.stdout).readline()
        assert f"http://127.0.0.1:{port}" in line
        assert "no model yet" in line
        until(lambda: healthy(port))
        began = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 143
        assert time.monotonic() - began < 10
    finally:
        child.kill()
        existing(child.stdout).close()


def test_overwriting_and_cutting_the_file_of_a_model_under_load_stops_nobody(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["toy"], tmp_path / "toy")
    port = free_port()
    config = {"stage": "serve", "port": port, "models": {"toy": str(tmp_path / "toy")}}
    child = start_child(run_folder(tmp_path / "run", config))
    body = {"model": "toy", "messages": HELLO, "max_tokens": 40, "temperature": 0, **ENDLESS}

    def ask(_: int = 0) -> str:
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
        return answer.json()["choices"][0]["message"]["content"]

    try:
        until(lambda: healthy(port))
        mapped = Path(f"/proc/{child.pid}/maps").read_text()
        assert "model.safetensors" not in mapped
        before = ask()
        weights = tmp_path / "toy" / "model.safetensors"
        with ThreadPoolExecutor(4) as threads:
            answers = threads.map(ask, range(40))
            shutil.copyfile(folders["other"] / "model.safetensors", weights)
            os.truncate(weights, 100)
            assert set(answers) == {before}
        assert child.poll() is None
        order = {"lora_name": "again", "lora_path": str(tmp_path / "toy")}
        again = httpx.post(f"http://127.0.0.1:{port}/v1/load_lora_adapter", json=order, timeout=60)
        assert again.status_code == 400
        assert "damaged" in again.json()["error"]["message"]
        assert ask() == before
    finally:
        child.kill()
        child.wait()
        existing(child.stdout).close()


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
    pool = ModelPool(COMPUTE, slots=1, max_models=1)
    with pytest.raises(InputError, match="no such model folder"):
        pool.load("x", "gpt2")
    assert os.environ.get("HF_HUB_OFFLINE") is None or pool.names() == {}


def test_a_model_of_the_hub_is_served_by_its_name(folders: dict[str, Path], tmp_path: Path) -> None:
    cached = tmp_path / "home" / "hub" / "models--org--toy"  # as the hub's client keeps a download
    shutil.copytree(folders["toy"], cached / "snapshots" / "0123abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abc")
    offline = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    port = free_port()
    child = start_child(
        run_folder(tmp_path / "run", {"stage": "serve", "port": port, "models": {"toy": "org/toy"}}), **offline
    )
    try:
        until(lambda: healthy(port))
        body = {"model": "toy", "messages": HELLO, "max_tokens": 8, "temperature": 0}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
        assert answer.json()["choices"][0]["message"]["content"] == greedy(folders["toy"])
    finally:
        child.kill()
        child.communicate()
    models = {"x": "org/nonesuch"}
    child = start_child(run_folder(tmp_path / "other", {"stage": "serve", "port": port, "models": models}), **offline)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "org/nonesuch: cannot get this model from the hub" in said


def test_the_thread_that_loads_a_model_ends_so_that_openmp_has_one_team(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[threading.Thread] = []
    monkeypatch.setattr("training.serve.pool.smoke_test", lambda _: computed.append(threading.current_thread()))
    ModelPool(COMPUTE, slots=1, max_models=1).load("model", str(folders["toy"]))
    assert computed[0] is not threading.current_thread()
    assert not computed[0].is_alive()


def test_a_conversation_is_counted_as_it_would_be_read(site: Site) -> None:
    said = site.chat(max_tokens=1).json()["usage"]["prompt_tokens"]
    counted = site.post("/tokenize", {"model": "toy", "messages": HELLO, "add_generation_prompt": True}).json()
    assert counted["count"] == len(counted["tokens"]) == said
    assert counted["max_model_len"] == site.client.models.list().data[0].to_dict()["max_model_len"]
    text = site.post("/tokenize", {"model": "toy", "prompt": "the cat"}).json()
    assert 0 < text["count"] < counted["count"]
    assert site.post("/tokenize", {"model": "none", "messages": HELLO}).status_code == 404
    assert site.post("/tokenize", {"model": "toy", "messages": HELLO}, token="x").status_code == 401
