import asyncio
import json

import httpx
import pytest

from webapp.chat import gateway
from webapp.errors import BadInput, TooMany, Unavailable

BODY = gateway.chat_body(
    model="kite-1", messages=[{"role": "user", "content": "Hi"}], temperature=0.5, top_p=0.9, max_tokens=20
)


def collected(transport, body=BODY):
    async def collect():
        return [chunk async for chunk in gateway.stream_chat(body, transport=transport)]

    return asyncio.run(collect())


def answering(status=200, *, json_body=None, text=None):
    return httpx.MockTransport(lambda _: httpx.Response(status, json=json_body, text=text))


def lines(*chunks, end="data: [DONE]\n\n"):
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end


def piece(text, finish=None):
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


def test_the_pieces_come_in_order_up_to_the_end():
    stream = ": ping\n\n" + lines(
        {"choices": [{"delta": {"role": "assistant"}}]}, piece("He"), piece("llo"), piece("", "stop")
    )

    chunks = collected(answering(text=stream))

    assert [gateway.delta(chunk) for chunk in chunks] == [("", ""), ("He", ""), ("llo", ""), ("", "stop")]


def test_the_request_is_that_of_the_openai_api():
    seen = []

    def take(request):
        seen.append((request.url.path, json.loads(request.content)))
        return httpx.Response(200, text=lines(piece("Hi", "stop")))

    collected(httpx.MockTransport(take))

    assert seen == [("/v1/chat/completions", {**BODY, "stream": True})]


def test_the_token_of_the_model_server_is_sent(settings):
    settings.MODEL_SERVER_TOKEN = "secret"

    def take(request):
        assert request.headers["authorization"] == "Bearer secret"
        return httpx.Response(200, text=lines(piece("Hi", "stop")))

    assert collected(httpx.MockTransport(take))


def test_a_whole_reply_comes_at_once():
    answer = {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]}

    assert asyncio.run(gateway.complete_chat(BODY, transport=answering(json_body=answer))) == answer


def test_a_server_that_is_down_says_what_to_do():
    with pytest.raises(Unavailable, match="tell whoever runs this installation") as caught:
        collected(None)  # the address that tests have: nothing answers there
    assert caught.value.error_code == "model_server_unavailable"


def test_a_stream_that_breaks_off_is_not_taken_for_whole():
    with pytest.raises(Unavailable, match="broke off"):
        collected(answering(text=lines(piece("He"), end="")))


def test_a_stream_of_nonsense_is_a_failure():
    with pytest.raises(Unavailable, match="broke off"):
        collected(answering(text="data: {nonsense\n\n"))


def test_an_error_inside_the_stream_is_told():
    with pytest.raises(Unavailable, match="out of memory"):
        collected(answering(text=lines({"error": {"message": "out of memory"}})))


@pytest.mark.parametrize(
    ("status", "said", "error", "sentence"),
    [
        (404, "The model `kite-1` does not exist.", Unavailable, "does not know the model kite-1"),
        (400, "This model's maximum context length is 64 tokens.", BadInput, "longer than the model can read"),
        (400, "temperature must be non-negative", BadInput, "temperature must be non-negative"),
        (401, "Unauthorized", Unavailable, "MODEL_SERVER_TOKEN"),
        (429, "queue full", TooMany, "more to do than it can take"),
        (500, "CUDA error", Unavailable, "CUDA error"),
    ],
)
def test_what_the_server_refuses_becomes_a_sentence(status, said, error, sentence):
    with pytest.raises(error, match=sentence):
        collected(answering(status, json_body={"error": {"message": said}}))
