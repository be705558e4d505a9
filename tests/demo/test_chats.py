"""The sample user's conversations: one reply at a time, each judged once, whoever else chats meanwhile."""

from __future__ import annotations

import uuid

import pytest

from annotations.models import Task
from tests import factories
from tests.chat.conftest import answer
from webapp.chat.models import Conversation, Feedback, Message
from webapp.chat.services import conversations
from webapp.demo import chats, services, steps
from webapp.demo.people import USER, sample_user
from webapp.demo.round import Round

pytestmark = pytest.mark.django_db


@pytest.fixture
def round_() -> Round:
    made = Round(services.start_demo(seed=1, size="quick"))
    steps.join_people(made)
    factories.deployment(made.project)
    return made


def pending() -> list[Message]:
    return list(Message.objects.filter(state=Message.State.PENDING).select_related("conversation"))


def test_one_reply_is_waited_for_at_a_time_until_all_are_judged(round_: Round) -> None:
    replies = 0
    while not chats.talk(round_):
        (reply,) = pending()
        answer(reply.conversation, "Leave me alone.")
        replies += 1
        assert replies < 50
    assert replies == 2 * round_.plan.chats
    assert Conversation.objects.count() == round_.plan.chats
    assert set(Feedback.objects.values_list("thumb", flat=True)) == {Feedback.Thumb.DOWN}
    assert Task.objects.filter(project=round_.project).exists()
    assert chats.talk(round_)
    assert Message.objects.filter(role="assistant").count() == replies


def test_it_waits_while_somebody_else_chats_as_the_sample_user(round_: Round) -> None:
    for _ in range(conversations.AT_ONCE):
        conversations.begin_conversation(
            user=sample_user(USER), project=round_.project, text="Hello?", token=uuid.uuid4()
        )
    assert not chats.talk(round_)
    assert len(pending()) == conversations.AT_ONCE
