"""A reply is written by a coroutine of its own, against the real database."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests import factories
from tests.chat.conftest import chunk, reply_of, saying
from tests.narrowing import existing
from webapp.chat import generation
from webapp.chat.models import Message
from webapp.chat.services import conversations, replies
from webapp.errors import BadInput, Conflict, Unavailable
from webapp.model_server.completions import Size
from webapp.model_server.refusals import UNAVAILABLE
from webapp.registry.models import Deployment

pytestmark = pytest.mark.django_db(transaction=True)
State = Message.State


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pending reply that nobody writes yet."""
    monkeypatch.setattr(conversations, "start_reply", lambda _: None)
    tess = factories.person("Tess")
    project = factories.project(tess, "Kite", slug="kite")
    factories.deployment(project)
    return conversations.begin_conversation(user=tess, project=project, text="Hello", token=uuid.uuid4())


def written(talk: Any, chat: Any, **options: Any) -> Message:
    reply = reply_of(talk)
    options.setdefault("serve", lambda model: model.served_name)
    asyncio.run(generation.write_reply(reply.pk, chat=chat, **options))
    reply.refresh_from_db()
    return reply


def test_a_reply_is_written_to_its_end(talk: Any) -> None:
    reply = written(talk, saying("He", "llo", "!"))

    assert (reply.text, reply.state, reply.finish) == ("Hello!", State.COMPLETE, "stop")


def test_the_model_server_is_asked_under_the_models_served_name(talk: Any) -> None:
    asked: list[Any] = []

    async def chat(body: Any) -> Any:
        asked.append((body["model"], body["messages"]))
        yield chunk("Hi", "stop")

    written(talk, chat)

    assert asked == [("kite-1", [{"role": "user", "content": "Hello"}])]


def test_a_reply_cut_at_the_longest_length_says_so(talk: Any) -> None:
    assert written(talk, saying("Hel", finish="length")).finish == "length"


async def by_words(_model: Any, turns: Any) -> Any:
    """A server that counts words, of a model that holds 20."""
    return Size(sum(len(turn["content"].split()) for turn in turns), 20)


def long_talk(talk: Any, exchanges: Any = 6) -> Any:
    """Exchanges of five words each, the last one pending."""
    for number in range(exchanges):
        reply = reply_of(talk)
        replies.claim(message_id=reply.pk)
        replies.append(message_id=reply.pk, text=f"Number {number} again")
        replies.finish_reply(message_id=reply.pk, reason="stop")
        conversations.send(conversation=talk, text=f"Say {number}", token=uuid.uuid4())
    return reply_of(talk)


def recorder(asked: Any, refuse_above: Any = None) -> Any:
    async def chat(body: Any) -> Any:
        asked.append(body["messages"])
        if refuse_above is not None and sum(len(m["content"].split()) for m in body["messages"]) > refuse_above:
            raise BadInput("This model's maximum context length is 20 tokens.", code="prompt_too_long")
        yield chunk("Hi", "stop")

    return chat


def test_a_long_conversation_goes_on_without_its_oldest_exchanges(talk: Any) -> None:
    talk.project.system_prompt = "Be brief."
    talk.project.max_new_tokens = 100
    talk.project.save()
    long_talk(talk)
    asked: list[Any] = []
    reply = written(talk, recorder(asked), count=by_words)

    (messages,) = asked
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert messages[1]["role"] == "user"
    assert [m["content"] for m in messages[1:]] == ["Say 3", "Number 4 again", "Say 4", "Number 5 again", "Say 5"]
    assert Message.objects.get(pk=existing(reply.seen_from)).text == "Say 3"
    assert reply.text == "Hi"


def test_where_the_server_does_not_count_the_older_half_drops_until_it_takes_the_rest(talk: Any) -> None:
    long_talk(talk)
    asked: list[Any] = []

    async def counts_nothing(_model: Any, _turns: Any) -> Any:
        return None

    reply = written(talk, recorder(asked, refuse_above=12), count=counts_nothing)

    assert len(asked) > 1
    assert asked[-1][0]["role"] == "user"
    assert asked[-1][-1]["content"] == "Say 5"
    assert Message.objects.get(pk=existing(reply.seen_from)).text == asked[-1][0]["content"]
    assert reply.text == "Hi"


def test_a_short_conversation_is_shown_whole_and_nobody_counts(talk: Any) -> None:
    talk.model.context = 1000
    talk.model.save()

    async def never(_model: Any, _turns: Any) -> None:
        raise AssertionError("counted")

    assert written(talk, saying("Hi"), count=never).seen_from is None


def test_a_message_longer_than_the_model_is_refused_with_its_length(talk: Any) -> None:
    conversations.show(message=talk.messages.first())
    reply = reply_of(talk)
    Message.objects.filter(pk=existing(reply.parent_id)).update(text="word " * 30)

    reply = written(talk, saying("Hi"), count=by_words)

    assert reply.error == (
        "Your message is longer than this model can read: it has 30 tokens, and the model reads 20. Shorten it, or "
        "send it in parts."
    )


def test_a_reply_that_ends_where_the_model_ends_is_told_apart_from_the_projects_limit(talk: Any) -> None:
    async def chat(_body: Any) -> Any:
        yield chunk("Hel", "length")
        yield {"choices": [], "usage": {"prompt_tokens": 250, "completion_tokens": 6}}

    assert written(talk, chat).finish == "context"


def test_pieces_are_kept_before_the_end_comes(talk: Any) -> None:
    reply = reply_of(talk)
    kept: list[Any] = []

    async def chat(body: Any) -> Any:
        yield chunk("Hel")
        while not kept:
            await asyncio.sleep(0.01)
            kept.extend(await generation.run_in_thread(list, reply.events.values_list("text", flat=True)))
        yield chunk("lo", "stop")

    written(talk, chat)

    assert kept == ["Hel"]


def test_a_server_that_is_down_leaves_a_sentence_and_a_retry(talk: Any) -> None:
    def down(model: Any) -> None:
        raise Unavailable("The model server at http://10.0.0.7:8300 does not answer. Set MODEL_SERVER_URL.")

    reply = written(talk, saying("Hi"), serve=down)

    assert (reply.state, reply.error) == (State.INTERRUPTED, UNAVAILABLE)


def test_a_damaged_model_is_the_operators_affair(talk: Any) -> None:
    def damaged(model: Any) -> None:
        raise Conflict("Model 5 is damaged: /srv/var/artefacts/model.safetensors is missing.", code="damaged")

    reply = written(talk, saying("Hi"), serve=damaged)

    assert reply.error == UNAVAILABLE
    assert "/srv/var" in Deployment.objects.get().problem


def test_a_message_that_alone_is_too_long_gets_a_sentence(talk: Any) -> None:
    reply = written(talk, saying(then=BadInput("maximum model length is 256", code="prompt_too_long")))

    assert reply.state == State.REFUSED
    assert reply.error == "Your message is longer than this model can read. Shorten it, or send it in parts."


def test_a_server_that_dies_in_the_middle_leaves_what_had_come(talk: Any) -> None:
    reply = written(talk, saying("Hel", then=Unavailable("The model server broke off.")))

    assert (reply.text, reply.state) == ("Hel", State.INTERRUPTED)


def test_a_defect_is_logged_and_told_without_its_trace(talk: Any, caplog: pytest.LogCaptureFixture) -> None:
    reply = written(talk, saying("Hel", then=ZeroDivisionError("secret detail")))

    assert (reply.text, reply.state, reply.error) == ("Hel", State.INTERRUPTED, generation.BROKEN)
    assert "secret detail" in caplog.text


def test_a_reply_that_is_stopped_ends_its_writer_though_the_model_is_silent(talk: Any) -> None:
    reply = reply_of(talk)
    closed = []

    async def chat(body: Any) -> Any:
        try:
            yield chunk("Hel")
            while not await generation.run_in_thread(reply.events.exists):  # noqa: ASYNC110 (another process may write it)
                await asyncio.sleep(0.01)
            await generation.run_in_thread(replies.stop_writing, message_id=reply.pk)
            await asyncio.sleep(60)
            yield chunk("lo", "stop")
        finally:
            closed.append(True)

    reply = written(talk, chat, heartbeat=0.01)

    assert (reply.text, reply.state, reply.finish, closed) == ("Hel", State.COMPLETE, "stopped", [True])


def test_two_writers_of_one_reply_write_it_once(talk: Any) -> None:
    reply = reply_of(talk)

    async def both() -> None:
        serve = lambda model: model.served_name  # noqa: E731
        await asyncio.gather(*(generation.write_reply(reply.pk, chat=saying("Hi"), serve=serve) for _ in range(2)))

    asyncio.run(both())

    reply.refresh_from_db()
    assert reply.text == "Hi"
