"""A chat while something is killed: no message is lost or there twice, and a broken reply can be asked for again."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest

from tests.kill.whole import Visitor, Whole, fresh_token, until

MESSAGES = """
from webapp.chat.models import Conversation
conversation = Conversation.objects.get(pk={conversation!r})
result = [{{"id": m.pk, "role": m.role, "text": m.text, "state": m.state, "error": m.error}}
          for m in conversation.messages.order_by("id")]
"""


def begin(user: Visitor, text: str) -> tuple[str, dict[str, str]]:
    """Start a conversation; its id, and the fields that were sent."""
    user.get("/chat/")
    fields = {"text": text, "token": fresh_token()}
    page = user.post("/chat/", fields)
    found = re.search(r"/chat/([0-9a-f-]{36})/", str(page.url))
    assert found, page.text[:500]
    return found[1], fields


def messages(whole: Whole, conversation: str) -> list[dict[str, Any]]:
    return list(whole.ask(MESSAGES.format(conversation=conversation)))


def ended(whole: Whole, conversation: str) -> dict[str, Any]:
    """The last reply, once it is not under way anymore."""
    until(lambda: messages(whole, conversation)[-1]["state"] not in ("pending", "streaming"), whole.said)
    return messages(whole, conversation)[-1]


def test_a_reply_comes_when_nothing_is_killed(whole: Whole, user: Visitor) -> None:
    conversation, _ = begin(user, "What is a kite?")
    assert ended(whole, conversation)["state"] == "complete"


@pytest.mark.parametrize("victims", [("model-server",), ("web-1", "web-2"), ("redis",), ("postgres",)], ids="+".join)
def test_a_reply_that_is_cut_off_is_told_as_such_and_can_be_asked_for_again(
    whole: Whole, user: Visitor, victims: tuple[str, ...]
) -> None:
    whole.send(signal.SIGSTOP, "model-server")  # so that the reply is under way when it happens
    conversation, _ = begin(user, "What is a kite?")
    assert messages(whole, conversation)[-1]["state"] in ("pending", "streaming")
    wait_for_another = whole.kill(*victims)
    if "model-server" not in victims:
        whole.send(signal.SIGCONT, "model-server")
    wait_for_another()
    reply = ended(whole, conversation)
    assert reply["state"] == "complete" or (reply["state"] == "interrupted" and reply["error"])
    assert [m["text"] for m in messages(whole, conversation) if m["role"] == "user"] == ["What is a kite?"]
    if reply["state"] == "interrupted":
        user.post_until_accepted(f"/chat/messages/{reply['id']}/regenerate/", {"token": fresh_token()})
        assert ended(whole, conversation)["state"] == "complete"


def test_a_message_that_is_sent_again_because_no_answer_came_is_there_once(whole: Whole, user: Visitor) -> None:
    conversation, _ = begin(user, "What is a kite?")
    ended(whole, conversation)
    fields = {"text": "And a drum?", "token": fresh_token()}
    wait_for_another = whole.kill("web-1", "web-2")
    user.post_until_accepted(f"/chat/{conversation}/send/", fields)
    wait_for_another()
    user.post_until_accepted(f"/chat/{conversation}/send/", fields)
    ended(whole, conversation)
    sent = [m["text"] for m in messages(whole, conversation) if m["role"] == "user"]
    assert sent == ["What is a kite?", "And a drum?"]
