"""The sample users chat with what is deployed and say what they think of it."""

from __future__ import annotations

import random
from uuid import uuid5

from webapp.chat.models import Conversation, Message
from webapp.chat.services.conversations import begin_conversation, send
from webapp.chat.services.feedback import allow_use, say_more, set_thumb
from webapp.demo.labeling import TOKENS
from webapp.demo.people import USER, sample_user
from webapp.demo.round import Round
from webapp.demo.rubric import judge
from webapp.demo.world.cases import Case
from webapp.errors import TooMany

GOOD = 9.0  # rubric points from which a reply gets a thumb up


def talk(demo_round: Round) -> bool:
    """A few conversations of two messages each, one after another, with feedback; true once all are judged."""
    cases = [case for case in demo_round.world.evaluation if not case.history][: 2 * demo_round.plan.chats]
    allow_use(user=sample_user(USER), project=demo_round.project)
    for number in range(demo_round.plan.chats):
        demo_round.note(f"Conversation {number + 1} of {demo_round.plan.chats}", number / demo_round.plan.chats)
        try:
            if not conversed(demo_round, number, cases[2 * number : 2 * number + 2]):
                return False
        except TooMany:
            return False  # somebody who looks around as the sample user waits for replies too
    return True


def conversed(demo_round: Round, number: int, cases: list[Case]) -> bool:
    """Take a conversation one reply further; true once both of its replies have come and are judged."""
    key = uuid5(TOKENS, f"chat:{demo_round.demo.pk}:{number}")
    conversation = begin_conversation(
        user=sample_user(USER), project=demo_round.project, text=cases[0].question, token=key
    )
    if settled(conversation) == 1:
        send(conversation=conversation, text=cases[1].question, token=uuid5(key, "second"))
    if settled(conversation) < 2:
        return False
    judge_replies(demo_round, conversation, cases)
    return True


def settled(conversation: Conversation) -> int:
    """How many replies of the conversation have ended, well or badly."""
    return sum(not reply.under_way for reply in conversation.messages.filter(role="assistant"))


def judge_replies(demo_round: Round, conversation: Conversation, cases: list[Case]) -> None:
    """Thumbs for each reply that came, with reasons and now and then a better answer for a bad one."""
    user = conversation.user
    rng = random.Random(f"{demo_round.demo.seed}:{conversation.pk}")
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
