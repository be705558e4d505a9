from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from webapp.errors import BadInput, Conflict, TooMany, Unavailable
from webapp.model_server import completions, refusals

BODY = completions.chat_body(
    model="kite-1", messages=[{"role": "user", "content": "Hi"}], temperature=0.5, top_p=0.9, max_tokens=20
)


def collected(transport: Any, body: Any = BODY) -> Any:
    async def collect() -> Any:
        return [chunk async for chunk in completions.stream_chat(body, transport=transport)]

    return asyncio.run(collect())


def streamed(text: Any) -> Any:
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream; charset=utf-8"})


def answering(status: Any = 200, *, json_body: Any = None, text: Any = None) -> Any:
    return httpx.MockTransport(
        lambda _: streamed(text) if status == 200 else httpx.Response(status, json=json_body, text=text)
    )


def lines(*chunks: Any, end: Any = "data: [DONE]\n\n") -> Any:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end


def piece(text: Any, finish: Any = None) -> Any:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


def test_the_pieces_come_in_order_up_to_the_end() -> None:
    stream = ": ping\n\n" + lines(
        {"choices": [{"delta": {"role": "assistant"}}]}, piece("He"), piece("llo"), piece("", "stop")
    )

    chunks = collected(answering(text=stream))

    assert [completions.delta(chunk) for chunk in chunks] == [("", ""), ("He", ""), ("llo", ""), ("", "stop")]


def test_the_request_is_that_of_the_openai_api() -> None:
    seen = []

    def take(request: httpx.Request) -> Any:
        seen.append((request.url.path, json.loads(request.content)))
        return streamed(lines(piece("Hi", "stop")))

    collected(httpx.MockTransport(take))

    assert seen == [("/v1/chat/completions", {**BODY, "stream": True})]


def test_the_token_of_the_model_server_is_sent(settings: Any) -> None:
    settings.MODEL_SERVER_TOKEN = "secret"

    def take(request: httpx.Request) -> Any:
        assert request.headers["authorization"] == "Bearer secret"
        return streamed(lines(piece("Hi", "stop")))

    assert collected(httpx.MockTransport(take))


def test_a_whole_reply_is_asked_for_as_a_stream_and_put_together() -> None:
    seen = []
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "kite-1"}

    def part(index: Any, text: Any, token: Any = None, finish: Any = None) -> Any:
        logprobs = {"content": [{"token": token, "logprob": -1.0}], "refusal": None} if token else None
        return {"index": index, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": finish}

    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    chunks = [
        frame | {"choices": [part(0, "He", "He")], "system_folded": True},
        frame | {"choices": [part(1, "Good")]},
        frame | {"choices": [part(0, "llo", "llo", "stop"), part(1, "bye", None, "length")]},
        frame | {"choices": [], "usage": usage},
    ]

    def take(request: httpx.Request) -> Any:
        seen.append(json.loads(request.content))
        return streamed(": waiting\n\n" + lines(*chunks))

    answer = asyncio.run(completions.complete(completions.CHAT, BODY, transport=httpx.MockTransport(take)))

    assert seen == [{**BODY, "stream": True, "stream_options": {"include_usage": True}}]
    assert (answer["object"], answer["id"], answer["model"]) == ("chat.completion", "chatcmpl-1", "kite-1")
    assert (answer["usage"], answer["system_folded"]) == (usage, True)
    first, second = answer["choices"]
    assert (first["message"]["content"], first["finish_reason"]) == ("Hello", "stop")
    assert [token["token"] for token in first["logprobs"]["content"]] == ["He", "llo"]
    assert (second["message"]["content"], second["finish_reason"]) == ("Goodbye", "length")
    assert second["logprobs"] is None


def test_a_server_that_is_down_says_what_to_do() -> None:
    with pytest.raises(Unavailable, match="tell whoever runs this installation") as caught:
        collected(None)  # the address that tests have: nothing answers there
    assert caught.value.error_code == "model_server_unavailable"


def test_a_stream_that_breaks_off_is_not_taken_for_whole() -> None:
    with pytest.raises(Unavailable, match="cut off"):
        collected(answering(text=lines(piece("He"), end="")))


def test_a_stream_of_nonsense_is_a_failure() -> None:
    with pytest.raises(Unavailable, match="cut off"):
        collected(answering(text="data: {nonsense\n\n"))


def test_an_error_inside_the_stream_is_told_and_its_details_kept_for_the_log() -> None:
    with pytest.raises(Unavailable, match="failed over this reply") as caught:
        collected(answering(text=lines({"error": {"message": "out of memory"}})))
    assert caught.value.data["said"] == "out of memory"


@pytest.mark.parametrize(
    ("status", "said", "error", "sentence"),
    [
        (404, "The model `kite-1` does not exist.", Unavailable, "model kite-1 is not ready yet"),
        (400, "This model's maximum context length is 64 tokens.", BadInput, "longer than the model can read"),
        (400, "temperature must be non-negative", BadInput, "temperature must be non-negative"),
        (401, "Unauthorized", Unavailable, "tell whoever runs this installation"),
        (429, "queue full", TooMany, "server is busy"),
        (500, "CUDA error", Unavailable, "its log has the details"),
    ],
)
def test_what_the_server_refuses_becomes_a_sentence(status: Any, said: Any, error: Any, sentence: Any) -> None:
    with pytest.raises(error, match=sentence):
        collected(answering(status, json_body={"error": {"message": said}}))


def test_the_servers_parameter_and_reason_are_kept() -> None:
    body = {"error": {"message": "min_p: this is not supported", "param": "min_p", "code": "unsupported_parameter"}}
    with pytest.raises(BadInput) as caught:
        collected(answering(400, json_body=body))
    data = caught.value.data
    assert (data["param"], data["reason"]) == ("min_p", "unsupported_parameter")


@pytest.mark.parametrize(
    "error",
    [
        Conflict("Model 3 (x) is damaged: /srv/artefacts/models/ab/model.safetensors is missing.", code="damaged"),
        Unavailable("The model server refused: /srv/artefacts is full", code="model_server_refused"),
        Unavailable("The model storage cannot be used: s3://bucket: denied", code="store_unavailable"),
        Unavailable("No answer at http://127.0.0.1:51335", code="model_server_unavailable"),
    ],
)
def test_who_chats_reads_no_path_and_no_address(error: Any) -> None:
    told = refusals.for_people(error)
    assert "/" not in told
    assert "manager" in told
