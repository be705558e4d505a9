from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests import factories
from tests.chat.conftest import answer, reply_of
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.chat import selectors
from webapp.chat.exports import conversation_row
from webapp.chat.models import Conversation, Message
from webapp.chat.services import conversations, replies
from webapp.errors import BadInput, Conflict, NotFound, TooMany


def test_a_conversation_begins_with_a_message_and_a_reply_to_come(talk: Any) -> None:
    user, reply = talk.messages.all()

    assert (user.role, user.text, talk.title) == ("user", "Who was Ada Lovelace?", "Who was Ada Lovelace?")
    assert (reply.role, reply.state, reply.parent) == ("assistant", Message.State.PENDING, user)


def test_a_beginning_sent_twice_begins_once(deployed: Any, tess: User) -> None:
    token = uuid.uuid4()
    first = conversations.begin_conversation(user=tess, project=deployed, text="Hello", token=token)
    second = conversations.begin_conversation(user=tess, project=deployed, text="Hello", token=token)

    assert first == second
    assert Message.objects.count() == 2


def test_somebody_elses_token_opens_nothing(talk: Any, ann: User, deployed: Any) -> None:
    with pytest.raises(Conflict):
        conversations.begin_conversation(user=ann, project=deployed, text="Hello", token=talk.pk)


def test_a_message_sent_twice_counts_once(talk: Any, answered: Any) -> None:
    token = uuid.uuid4()
    first = conversations.send(conversation=talk, text="And then?", token=token)
    second = conversations.send(conversation=talk, text="And then?", token=token)

    assert first == second
    assert talk.messages.filter(role="user").count() == 2


def test_nothing_begins_where_nothing_is_deployed(project: Project, tess: User) -> None:
    with pytest.raises(Conflict, match="A manager of the project can deploy one"):
        conversations.begin_conversation(user=tess, project=project, text="Hello", token=uuid.uuid4())
    assert not Conversation.objects.exists()


def test_nul_bytes_are_dropped_and_blank_messages_refused(deployed: Any, tess: User) -> None:
    talk = conversations.begin_conversation(user=tess, project=deployed, text="He\x00llo", token=uuid.uuid4())
    assert existing(talk.messages.first()).text == "Hello"

    with pytest.raises(BadInput, match="Write something first"):
        conversations.begin_conversation(user=tess, project=deployed, text=" \x00\n", token=uuid.uuid4())


def test_a_message_that_is_too_long_says_how_long_it_may_be(deployed: Any, tess: User) -> None:
    with pytest.raises(BadInput, match="50,000 is the maximum"):
        conversations.begin_conversation(user=tess, project=deployed, text="x" * 50_001, token=uuid.uuid4())


def test_a_message_waits_for_the_reply_before_it(talk: Any) -> None:
    with pytest.raises(Conflict, match="still being written"):
        conversations.send(conversation=talk, text="And?", token=uuid.uuid4())


def test_one_person_cannot_have_everything_written_at_once(deployed: Any, tess: User) -> None:
    for _ in range(conversations.AT_ONCE):
        conversations.begin_conversation(user=tess, project=deployed, text="Hello", token=uuid.uuid4())

    with pytest.raises((TooMany, Conflict)):
        conversations.begin_conversation(user=tess, project=deployed, text="Hello", token=uuid.uuid4())


def test_an_edit_is_a_branch_and_the_old_one_stays(talk: Any, answered: Any) -> None:
    question = answered.parent
    edited = conversations.edit(message=question, text="Who was Alan Turing?", token=uuid.uuid4())
    answer(talk, "Another mathematician.")

    shown = [line.text for line in selectors.thread(talk).lines]
    assert shown == ["Who was Alan Turing?", "Another mathematician."]
    assert edited.parent == question.parent

    conversations.show(message=question)
    talk.refresh_from_db()
    assert [line.text for line in selectors.thread(talk).lines] == ["Who was Ada Lovelace?", "A mathematician."]


def test_only_ones_own_words_can_be_edited(answered: Any) -> None:
    with pytest.raises(BadInput, match="better answer"):
        conversations.edit(message=answered, text="x", token=uuid.uuid4())


def test_another_reply_stands_beside_the_first(talk: Any, answered: Any) -> None:
    token = uuid.uuid4()
    second = conversations.regenerate(message=answered, token=token)
    assert conversations.regenerate(message=answered, token=token) == second
    answer(talk, "The first programmer.")

    line = selectors.thread(talk).lines[-1]
    assert (line.text, line.position, line.siblings) == ("The first programmer.", 2, [answered.pk, second.pk])
    assert (line.rival, line.rival_number) == (answered, 1)


def test_a_reply_that_failed_without_a_word_is_no_branch_to_turn_to(talk: Any) -> None:
    failed = reply_of(talk)
    replies.fail_reply(message_id=failed.pk, error="No server.", refused=True)
    conversations.regenerate(message=failed, token=uuid.uuid4())
    second = answer(talk, "A mathematician.")

    line = selectors.thread(talk).lines[-1]
    assert line.siblings == [second.pk]


def test_the_model_gets_the_branch_in_sight_and_the_projects_system_prompt(
    talk: Any, answered: Any, deployed: Any
) -> None:
    conversations.edit(message=answered.parent, text="Who was Grace Hopper?", token=uuid.uuid4())
    deployed.system_prompt = "You are a guide."
    deployed.save()

    job = existing(replies.claim(message_id=reply_of(talk).pk))

    assert job.body["messages"] == [
        {"role": "system", "content": "You are a guide."},
        {"role": "user", "content": "Who was Grace Hopper?"},
    ]
    assert job.body["max_tokens"] == deployed.max_new_tokens


def test_an_exchange_that_failed_without_a_word_is_not_told_to_the_model(talk: Any, answered: Any) -> None:
    conversations.send(conversation=talk, text="Lost?", token=uuid.uuid4())
    replies.fail_reply(message_id=reply_of(talk).pk, error="No server.", refused=True)
    conversations.send(conversation=talk, text="And now?", token=uuid.uuid4())

    turns = selectors.messages_before(reply_of(talk))

    assert [turn["content"] for turn in turns] == ["Who was Ada Lovelace?", "A mathematician.", "And now?"]


def test_a_conversation_keeps_its_model_while_that_is_deployed(deployed: Any, talk: Any, answered: Any) -> None:
    first = talk.model
    factories.deployment(deployed, state="canary", share=1.0)
    conversations.send(conversation=talk, text="Still you?", token=uuid.uuid4())
    assert reply_of(talk).model == first

    answer(talk, "Yes.")
    deployed.deployments.filter(model=first).update(state="rolled_back")
    conversations.send(conversation=talk, text="And now?", token=uuid.uuid4())
    assert reply_of(talk).model != first


def test_a_deleted_conversation_is_out_of_sight_until_it_is_brought_back(
    talk: Any, answered: Any, tess: User, deployed: Any
) -> None:
    conversations.delete(conversation=talk)
    assert not selectors.conversations_of(tess, deployed).exists()
    with pytest.raises(NotFound):
        selectors.conversation_of_user(tess, talk.pk)
    with pytest.raises(NotFound, match="deleted"):
        conversations.send(conversation=talk, text="Hello?", token=uuid.uuid4())

    conversations.restore(conversation=talk)
    assert selectors.conversation_of_user(tess, talk.pk) == talk


def test_search_finds_titles_and_what_was_said(talk: Any, answered: Any, tess: User, deployed: Any) -> None:
    other = factories.conversation(tess, deployed, title="Bread")

    assert list(selectors.conversations_of(tess, deployed, "MATHEMATICIAN")) == [talk]
    assert list(selectors.conversations_of(tess, deployed, "bread")) == [other]
    assert not selectors.conversations_of(tess, deployed, "zebra")


def test_the_export_has_every_branch(talk: Any, answered: Any) -> None:
    conversations.regenerate(message=answered, token=uuid.uuid4())
    answer(talk, "The first programmer.")

    texts = [row["content"] for row in conversation_row(talk)["messages"]]

    assert texts == ["Who was Ada Lovelace?", "A mathematician.", "The first programmer."]
    assert "A mathematician." not in selectors.as_markdown(talk)


def test_long_titles_end_at_a_word() -> None:
    title = conversations.title_of("word " * 40)

    assert len(title) <= 61
    assert title.endswith("word…")
