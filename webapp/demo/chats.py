"""The sample users chat with what is deployed and say what they think of it."""

from __future__ import annotations

import random
from uuid import uuid5

from webapp.chat.models import Conversation, Message
from webapp.chat.services.conversations import begin, send
from webapp.chat.services.feedback import allow_use, say_more, set_thumb
from webapp.demo.labelling import TOKENS
from webapp.demo.people import USER, person
from webapp.demo.round import Round
from webapp.demo.rubric import judge
from webapp.demo.world.cases import Case

GOOD = 9.0  # rubric points from which a reply gets a thumb up


def talk(of: Round) -> bool:
    """A few conversations of two messages each, with feedback; true once all replies are there and judged."""
    user = person(USER)
    cases = [case for case in of.world.evaluation if not case.history][: 2 * of.plan.chats]
    allow_use(user=user, project=of.project)
    through = True
    for number in range(of.plan.chats):
        first, second = cases[2 * number : 2 * number + 2]
        key = uuid5(TOKENS, f"chat:{of.demo.pk}:{number}")
        conversation = begin(user=user, project=of.project, text=first.question, token=key)
        answered = settled(conversation)
        if answered == 1:
            send(conversation=conversation, text=second.question, token=uuid5(key, "second"))
        if answered < 2:
            through = False
            continue
        judge_replies(of, conversation, [first, second])
    of.note("Waiting for replies in the chat")
    return through


def settled(conversation: Conversation) -> int:
    """How many replies of the conversation have ended, well or badly."""
    return sum(not reply.under_way for reply in conversation.messages.filter(role="assistant"))


def judge_replies(of: Round, conversation: Conversation, cases: list[Case]) -> None:
    """Thumbs for each reply that came, with reasons and now and then a better answer for a bad one."""
    user = conversation.user
    rng = random.Random(f"{of.demo.seed}:{conversation.pk}")
    replies = conversation.messages.filter(role="assistant", state=Message.State.COMPLETE).order_by("id")
    for reply, case in zip(replies, cases, strict=False):
        if reply.feedback.filter(user=user).exists():
            continue
        marks = judge(case, reply.text)
        if marks.total >= GOOD:
            set_thumb(reply=reply, user=user, thumb=1)
            continue
        set_thumb(reply=reply, user=user, thumb=-1)
        reasons = [
            name
            for name, bad in (
                ("incorrect", marks.correct < 1),
                ("long", marks.concise < 1),
                ("impolite", marks.polite == 0),
            )
            if bad
        ]
        better = case.right if rng.random() < 0.7 else ""
        say_more(reply=reply, user=user, reasons=reasons, comment="", better_answer=better)
