from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.chat.conftest import answer, reply_of
from webapp import processes
from webapp.accounts.models import User
from webapp.chat.models import Event, Message
from webapp.chat.services import conversations, feedback, replies
from webapp.errors import BadInput

State = Message.State


def test_a_reply_is_the_sum_of_its_pieces(talk: Any) -> None:
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    for piece in ("A mathe", "matician", "."):
        assert replies.append(message_id=reply.pk, text=piece)
    replies.finish_reply(message_id=reply.pk, reason="stop")

    reply.refresh_from_db()
    assert (reply.text, reply.state, reply.finish) == ("A mathematician.", State.COMPLETE, "stop")
    assert list(reply.events.values_list("number", flat=True)) == [1, 2, 3]


def test_a_reply_is_claimed_once(talk: Any) -> None:
    reply = reply_of(talk)

    assert replies.claim(message_id=reply.pk) is not None
    assert replies.claim(message_id=reply.pk) is None


def test_a_stopped_reply_keeps_what_had_come_and_takes_no_more(talk: Any) -> None:
    reply = reply_of(talk)
    job = replies.claim(message_id=reply.pk)
    assert job is not None
    replies.append(message_id=reply.pk, text="A mathe")
    replies.stop_writing(message_id=reply.pk)

    assert not replies.append(message_id=reply.pk, text="matician")
    assert not replies.beat(job)
    replies.finish_reply(message_id=reply.pk, reason="stop")
    reply.refresh_from_db()
    assert (reply.text, reply.state, reply.finish) == ("A mathe", State.COMPLETE, "stopped")


def test_a_reply_stopped_before_its_first_word_can_be_asked_for_again(talk: Any) -> None:
    reply = reply_of(talk)
    replies.stop_writing(message_id=reply.pk)

    reply.refresh_from_db()
    assert (reply.state, reply.error) == (State.REFUSED, replies.STOPPED_EARLY)
    assert replies.claim(message_id=reply.pk) is None


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_a_reply_of_nothing_says_so(talk: Any, nothing: Any) -> None:
    reply = answer(talk, nothing)

    assert reply.state == State.REFUSED
    assert "empty reply" in reply.error


def test_a_reply_that_breaks_keeps_its_text_and_says_why(talk: Any) -> None:
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    replies.append(message_id=reply.pk, text="A mathe")
    replies.fail_reply(message_id=reply.pk, error="The model server broke off.")

    reply.refresh_from_db()
    assert (reply.text, reply.state, reply.error) == ("A mathe", State.INTERRUPTED, "The model server broke off.")


def test_a_reply_whose_writer_is_gone_is_interrupted_with_its_text(talk: Any) -> None:
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    replies.append(message_id=reply.pk, text="A mathe")
    now = timezone.now()

    assert replies.interrupt_stale(now=now + replies.STALE - timedelta(seconds=2)) == 0
    assert replies.interrupt_stale(now=now + replies.STALE + timedelta(seconds=2)) == 1
    reply.refresh_from_db()
    assert (reply.text, reply.state) == ("A mathe", State.INTERRUPTED)
    assert not replies.append(message_id=reply.pk, text="too late")


def test_a_pending_reply_that_nobody_took_is_interrupted_too(talk: Any) -> None:
    assert replies.interrupt_stale(now=timezone.now() + replies.STALE * 2) == 1
    assert reply_of(talk).state == State.INTERRUPTED


def test_nul_bytes_of_a_model_do_not_break_a_reply(talk: Any) -> None:
    assert answer(talk, "A\x00 mathematician.").text == "A mathematician."


def test_pieces_go_a_day_after_the_reply_is_whole_and_the_text_stays(answered: Any) -> None:
    replies.drop_old_pieces(now=timezone.now() + timedelta(hours=23))
    assert Event.objects.exists()

    replies.drop_old_pieces(now=timezone.now() + timedelta(hours=25))
    answered.refresh_from_db()
    assert not Event.objects.exists()
    assert answered.text == "A mathematician."


def test_a_deleted_conversation_goes_for_good_after_a_month(talk: Any, answered: Any) -> None:
    conversations.delete(conversation=talk)
    replies.drop_old_pieces(now=timezone.now() + timedelta(days=29))
    assert Message.objects.exists()

    replies.drop_old_pieces(now=timezone.now() + timedelta(days=31))
    assert not Message.objects.exists()


def test_a_reply_is_judged_only_at_its_end(talk: Any, tess: User) -> None:
    with pytest.raises(BadInput, match="Wait until the reply is complete"):
        feedback.set_thumb(reply=reply_of(talk), user=tess, thumb=1)


def test_a_reply_whose_web_process_died_is_interrupted_at_once(talk: Any) -> None:
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    child = subprocess.Popen([sys.executable, "-c", ""])
    name = processes.identity(child.pid)
    child.wait()
    Message.objects.filter(pk=reply.pk).update(claimed_by=name)

    assert replies.interrupt_stale() == 1
    reply.refresh_from_db()
    assert (reply.state, reply.claim) == (State.INTERRUPTED, None)
