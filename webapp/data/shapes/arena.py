"""Votes between two models.

{model_a, model_b, winner, conversation_a, conversation_b, judge, turn}     Chatbot Arena, MT-bench human judgments
{prompt: "[…]", response_a: "[…]", response_b: "[…]", winner_model_a, winner_model_b, winner_tie}     LMSYS on Kaggle

"tie (bothbad)" is no tie between good replies: both are judged bad. Conversations that part before their last reply
answer different prompts and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.model import Item, Messages
from webapp.data.shapes.row import Row, Skip, label_fields, number
from webapp.data.shapes.turns import parse_chat, parse_json_text
from webapp.data.shapes.two_replies import FIRST, SECOND, TIE, Vote, by_name, voted

SIDES: Final = ("conversation_a", "conversation_b")
ONE_HOT: Final = (("winner_model_a", FIRST), ("winner_model_b", SECOND), ("winner_tie", TIE))
DIFFERENT: Final = "the two conversations part before their last reply"


def is_vote(row: Row) -> bool:
    return row.has("winner", *SIDES)


def read_vote(row: Row) -> Iterator[Item]:
    winner = by_name(row.get("winner"), ("model_a", "model_b"))
    if winner is None:
        raise Skip(f"its winner is none that is known: {str(row.peek('winner'))[:40]}")
    turns = number(row.get("turn"))
    sides = [parse_chat(parse_json_text(row.get(name)), row, name).messages for name in SIDES]
    if turns is not None and turns >= 1:
        sides = [up_to(messages, int(turns)) for messages in sides]
    if not all(side and side[-1]["role"] == "assistant" for side in sides):
        raise Skip("a conversation does not end with the assistant's turn")
    if sides[0][:-1] != sides[1][:-1]:
        raise Skip(DIFFERENT)
    replies = [side[-1]["content"] for side in sides]
    yield from voted(sides[0][:-1], replies, [Vote(winner)], **label_fields(row))


def up_to(messages: Messages, exchanges: int) -> Messages:
    """The first exchanges, to which a vote belongs whose conversation went on."""
    answered = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return messages[: answered[exchanges - 1] + 1] if len(answered) > exchanges else messages


def is_one_hot(row: Row) -> bool:
    return row.has("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b")


def read_one_hot(row: Row) -> Iterator[Item]:
    winners = [winner for name, winner in ONE_HOT if number(row.get(name)) == 1 or row.peek(name) is True]
    if len(winners) != 1:
        raise Skip("not exactly one of winner_model_a, winner_model_b and winner_tie is 1")
    questions, *answered = (texts(row.get(name), name) for name in ("prompt", "response_a", "response_b"))
    if len(questions) > 1:
        raise Skip(DIFFERENT)
    replies = [answers[0] for answers in answered]
    yield from voted([{"role": "user", "content": questions[0]}], replies, [Vote(winners[0])], **label_fields(row))


def texts(value: Any, name: str) -> list[str]:
    """The turns of one side: a list of texts, which may stand as JSON in a text."""
    value = parse_json_text(value)
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(text, str) for text in values):
        raise Skip(f"“{name}” is not a list of texts")
    return values
