"""A reply is written by a coroutine of its own, against the real database."""

import asyncio
import uuid

import pytest

from tests import factories
from tests.chat.conftest import chunk, reply_of, saying
from webapp.chat import generation
from webapp.chat.models import Message
from webapp.chat.services import conversations, replies
from webapp.errors import BadInput, Unavailable

pytestmark = pytest.mark.django_db(transaction=True)
State = Message.State


@pytest.fixture
def talk(monkeypatch):
    """A pending reply that nobody writes yet."""
    monkeypatch.setattr(conversations, "start", lambda _: None)
    tess = factories.person("Tess")
    project = factories.project(tess, "Kite", slug="kite")
    factories.deployment(project)
    return conversations.begin(user=tess, project=project, text="Hello", token=uuid.uuid4())


def written(talk, chat, **options) -> Message:
    reply = reply_of(talk)
    options.setdefault("serve", lambda model: model.served_name)
    asyncio.run(generation.write_reply(reply.pk, chat=chat, **options))
    reply.refresh_from_db()
    return reply


def test_a_reply_is_written_to_its_end(talk):
    reply = written(talk, saying("He", "llo", "!"))

    assert (reply.text, reply.state, reply.finish) == ("Hello!", State.COMPLETE, "stop")


def test_the_model_server_is_asked_under_the_models_served_name(talk):
    asked = []

    async def chat(body):
        asked.append((body["model"], body["messages"]))
        yield chunk("Hi", "stop")

    written(talk, chat)

    assert asked == [("kite-1", [{"role": "user", "content": "Hello"}])]


def test_a_reply_cut_at_the_longest_length_says_so(talk):
    assert written(talk, saying("Hel", finish="length")).finish == "length"


def test_pieces_are_kept_before_the_end_comes(talk):
    reply = reply_of(talk)
    kept = []

    async def chat(body):
        yield chunk("Hel")
        while not kept:
            await asyncio.sleep(0.01)
            kept.extend(await generation.in_thread(list, reply.events.values_list("text", flat=True)))
        yield chunk("lo", "stop")

    written(talk, chat)

    assert kept == ["Hel"]


def test_a_server_that_is_down_leaves_a_sentence_and_a_retry(talk):
    def down(model):
        raise Unavailable("The model server does not answer.")

    reply = written(talk, saying("Hi"), serve=down)

    assert (reply.state, reply.error) == (State.INTERRUPTED, "The model server does not answer.")


def test_a_prompt_that_is_too_long_is_refused(talk):
    reply = written(talk, saying(then=BadInput("This conversation is longer than the model can read.")))

    assert (reply.state, reply.error) == (State.REFUSED, "This conversation is longer than the model can read.")


def test_a_server_that_dies_in_the_middle_leaves_what_had_come(talk):
    reply = written(talk, saying("Hel", then=Unavailable("The model server broke off.")))

    assert (reply.text, reply.state) == ("Hel", State.INTERRUPTED)


def test_a_defect_is_logged_and_told_without_its_trace(talk, caplog):
    reply = written(talk, saying("Hel", then=ZeroDivisionError("secret detail")))

    assert (reply.text, reply.state, reply.error) == ("Hel", State.INTERRUPTED, generation.BROKEN)
    assert "secret detail" in caplog.text


def test_a_reply_that_is_stopped_ends_its_writer_though_the_model_is_silent(talk):
    reply = reply_of(talk)
    closed = []

    async def chat(body):
        try:
            yield chunk("Hel")
            while not await generation.in_thread(reply.events.exists):  # noqa: ASYNC110 (another process may write it)
                await asyncio.sleep(0.01)
            await generation.in_thread(replies.stop, message_id=reply.pk)
            await asyncio.sleep(60)
            yield chunk("lo", "stop")
        finally:
            closed.append(True)

    reply = written(talk, chat, heartbeat=0.01)

    assert (reply.text, reply.state, reply.finish, closed) == ("Hel", State.COMPLETE, "stopped", [True])


def test_two_writers_of_one_reply_write_it_once(talk):
    reply = reply_of(talk)

    async def both():
        serve = lambda model: model.served_name  # noqa: E731
        await asyncio.gather(*(generation.write_reply(reply.pk, chat=saying("Hi"), serve=serve) for _ in range(2)))

    asyncio.run(both())

    reply.refresh_from_db()
    assert reply.text == "Hi"
