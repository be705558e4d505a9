"""From parts of a row to items: what cannot be learned from is left out here, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from webapp.data.shapes.model import (
    DemonstrationItem,
    Item,
    JudgmentItem,
    LeftOut,
    Messages,
    PromptItem,
    RankingItem,
)
from webapp.data.shapes.row import Row, Skip
from webapp.data.shapes.turns import Chat

BROKEN = "a character is broken: half of a surrogate pair"


def prompt_problem(messages: Messages) -> str:
    """Why these messages cannot be replied to; empty if they can."""
    if not messages or all(is_blank_text(m["content"]) for m in messages):
        return "the prompt is empty"
    if messages[-1]["role"] != "user":
        return "the prompt does not end with the user's turn"
    if any(is_blank_text(m["content"]) for m in messages):
        return "a message is empty"
    turns = [m["role"] for m in messages if m["role"] != "system"]
    return "" if all(a != b for a, b in pairwise(turns)) else "two turns of the same side in a row"


def is_blank_text(text: str) -> bool:
    return not text.replace("\0", "").strip()


def is_broken(*texts: str) -> bool:
    """Does a text hold half of a surrogate pair, which no file of text can hold?"""
    for text in texts:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                return True
    return False


def check(messages: Messages, *replies: str) -> None:
    if problem := prompt_problem(messages):
        raise Skip(problem)
    if is_broken(*(m["content"] for m in messages), *replies):
        raise Skip(BROKEN)


def prompt(messages: Messages, **fields: Any) -> PromptItem:
    check(messages)
    return PromptItem(messages, **{name: value for name, value in fields.items() if name == "split"})


def demonstration(messages: Messages, reply: str, **fields: Any) -> DemonstrationItem:
    check(messages, reply)
    if is_blank_text(reply):
        raise Skip("the reply is empty")
    return DemonstrationItem(messages, reply, **fields)


def judgment(messages: Messages, reply: str, good: bool, **fields: Any) -> JudgmentItem:
    check(messages, reply)
    if is_blank_text(reply):
        raise Skip("the reply is empty")
    return JudgmentItem(messages, reply, good, **fields)


def ranking(messages: Messages, replies: Sequence[Any], ranks: Sequence[float], **fields: Any) -> RankingItem:
    """Replies with ranks (the lowest is the best; equal ranks tie) as ordered groups; empty replies are left away."""
    ranked = [
        (rank, reply)
        for rank, reply in zip(ranks, replies, strict=True)
        if isinstance(reply, str) and not is_blank_text(reply)
    ]
    if len(ranked) < 2:
        raise Skip("fewer than two replies that are not empty")
    if len({reply for _, reply in ranked}) < len(ranked):
        raise Skip("two of the replies are the same text")
    check(messages, *(reply for _, reply in ranked))
    groups = [
        [i for i, (rank, _) in enumerate(ranked) if rank == level] for level in sorted({rank for rank, _ in ranked})
    ]
    return RankingItem(messages, [reply for _, reply in ranked], groups, **fields)


def chat_item(chat: Chat, row: Row, **fields: Any) -> Item:
    """A chat as a demonstration of its last assistant turn that is to be learned (the earlier ones are learned with
    it), or as a prompt where the assistant says nothing."""
    messages, masked = chat.messages, set(chat.masked)
    learned = [i for i, m in enumerate(messages) if m["role"] == "assistant" and i not in masked]
    if not learned:
        if masked:
            return LeftOut("its weight is 0: no turn of the assistant is to be learned")
        return prompt(messages, **fields)
    reply_index = learned[-1]
    following = messages[reply_index + 1 :]
    if following:
        row.note("what follows the last reply that is learned was dropped: nothing answers it")
    unanswered = following if following and following[-1]["role"] == "user" and len(following) == 1 else []
    return demonstration(
        messages[:reply_index],
        messages[reply_index]["content"],
        masked_turns=[i for i in chat.masked if i < reply_index],
        unanswered=unanswered,
        **fields,
    )
