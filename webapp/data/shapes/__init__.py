"""The shapes in which preference data, demonstrations, prompts and text come, brought to ours.

{chosen, rejected}                 HH dialogues (Human:, Assistant:), chat messages, or replies to {prompt}
{prompt, replies, ranks}           rankings of K; equal ranks tie; the lowest rank is the best
{prompt: {text, role, replies}}    Open-Assistant trees: siblings with `rank` are a ranking, the best demonstrates
{instruction, context?, response}  Dolly; or {instruction, input?, output}, {question, answer}, {prompt, completion}
{messages: [{role, content}]}      chats, or {conversations: [{from, value}]}; ending with the user: a prompt
{text} {prompt} "…"                a document; a prompt; a bare string is a prompt
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

from webapp.data.files import Record
from webapp.data.shapes.model import (
    DemonstrationItem,
    Document,
    Item,
    JudgmentItem,
    Kind,
    LeftOut,
    Messages,
    PromptItem,
    RankingItem,
    UnknownShape,
)

__all__ = [
    "DemonstrationItem", "Document", "Item", "JudgmentItem", "Kind", "LeftOut", "Messages", "PromptItem", "RankingItem",
    "UnknownShape", "items",
]  # fmt: skip

ROLES: Final = {
    "human": "user", "user": "user", "prompter": "user", "system": "system",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
TURN: Final = re.compile(r"\n\n(Human|Assistant):")
PAIRS: Final = (
    ("instruction", "response"), ("instruction", "output"), ("question", "answer"), ("prompt", "completion"),
    ("prompt", "response"),
)  # fmt: skip
CONTEXTS: Final = ("context", "input")


def items(record: Record) -> Iterator[Item]:
    """What a record holds. Raises UnknownShape, saying what keys it found."""
    if isinstance(record, str):
        yield from checked_prompt([{"role": "user", "content": record}])
        return
    for fits, convert in SHAPES:
        if fits(record):
            yield from convert(record)
            return
    keys = ", ".join(sorted(map(str, record))[:8]) or "no keys"
    raise UnknownShape(f"cannot tell what this record is (found: {keys})")


# ------------------------------------------------------------------------------------------------------------ rankings


def preference(record: dict[str, Any]) -> Iterator[Item]:
    """HH dialogues or chat messages, where chosen and rejected share all but their last turn."""
    sides = [conversation(record[side], record.get("prompt")) for side in ("chosen", "rejected")]
    if None in sides or not all(side and side[-1]["role"] == "assistant" for side in sides):
        yield LeftOut("chosen or rejected does not end with the assistant's turn")
        return
    chosen, rejected = sides[0] or [], sides[1] or []
    if chosen[:-1] != rejected[:-1]:
        yield LeftOut("chosen and rejected answer different prompts")
        return
    yield ranking(chosen[:-1], [chosen[-1]["content"], rejected[-1]["content"]], [1.0, 2.0])


def ranked(record: dict[str, Any]) -> Iterator[Item]:
    replies, ranks = record["replies"], record["ranks"]
    texts = [r["text"] if isinstance(r, dict) else r for r in replies] if isinstance(replies, list) else []
    if not isinstance(ranks, list) or len(ranks) != len(texts) or not all(isinstance(r, int | float) for r in ranks):
        yield LeftOut("replies and ranks are not lists of the same length")
        return
    messages = conversation(record["prompt"], None)
    yield ranking(messages, texts, ranks) if messages else LeftOut("the prompt is empty")


def ranking(messages: Messages, replies: list[str], ranks: list[Any]) -> Item:
    """Replies with ranks (the lowest is the best) as ordered groups; identical replies are left out."""
    kept = [
        (rank, reply.strip())
        for rank, reply in zip(ranks, replies, strict=True)
        if isinstance(reply, str) and reply.strip()
    ]
    if len(kept) < 2:
        return LeftOut("fewer than two replies that are not empty")
    if len({reply for _, reply in kept}) < len(kept):
        return LeftOut("two of the replies are the same text")
    if problem := prompt_problem(messages):
        return LeftOut(problem)
    groups = [[i for i, (rank, _) in enumerate(kept) if rank == level] for level in sorted({rank for rank, _ in kept})]
    return RankingItem(messages, [reply for _, reply in kept], groups)


def tree(record: dict[str, Any]) -> Iterator[Item]:
    """An Open-Assistant message tree: each set of ranked siblings is a ranking, the best of them demonstrates."""
    pending: list[tuple[dict[str, Any], Messages]] = [(record["prompt"], [])]
    while pending:
        node, before = pending.pop()
        if node.get("deleted") or node.get("review_result") is False or not str(node.get("text", "")).strip():
            yield LeftOut("a message that was deleted or failed review")
            continue
        here = [*before, {"role": ROLES.get(str(node.get("role")), "user"), "content": str(node["text"]).strip()}]
        replies = [r for r in node.get("replies", []) if isinstance(r, dict)]
        pending.extend((reply, here) for reply in replies)
        if here[-1]["role"] == "user":
            yield from siblings(
                here, [r for r in replies if not r.get("deleted") and r.get("review_result") is not False]
            )


def siblings(messages: Messages, replies: list[dict[str, Any]]) -> Iterator[Item]:
    if not replies:
        yield from checked_prompt(messages)
        return
    rated = [r for r in replies if isinstance(r.get("rank"), int | float)]
    if len(rated) > 1:
        yield ranking(messages, [str(r.get("text", "")) for r in rated], [r["rank"] for r in rated])
    best = min(rated, key=lambda r: r["rank"]) if rated else replies[0]
    yield from checked_demonstration(messages, str(best.get("text", "")))


# ------------------------------------------------------------------------------------------- demonstrations and prompts


def pair(record: dict[str, Any]) -> Iterator[Item]:
    asked, answered = next(p for p in PAIRS if has_text(record, *p))
    question = str(record[asked]).strip()
    context = next((str(record[key]).strip() for key in CONTEXTS if str(record.get(key) or "").strip()), "")
    content = f"{question}\n\n{context}" if context else question
    yield from checked_demonstration([{"role": "user", "content": content}], str(record[answered]))


def chat(record: dict[str, Any]) -> Iterator[Item]:
    messages = conversation(record.get("messages") or record.get("conversations"), None)
    if not messages:
        yield LeftOut("messages are not a list of {role, content}")
    elif messages[-1]["role"] == "assistant":
        yield from checked_demonstration(messages[:-1], messages[-1]["content"])
    else:
        yield from checked_prompt(messages)


def bare_prompt(record: dict[str, Any]) -> Iterator[Item]:
    messages = conversation(record.get("prompt") or record.get("instruction") or record.get("question"), None)
    yield from checked_prompt(messages or [])


def document(record: dict[str, Any]) -> Iterator[Item]:
    text = record["text"]
    if not text.strip():
        yield LeftOut("empty text")
        return
    yield Document(text, "html" if record.get("format") == "html" else "text")


def checked_demonstration(messages: Messages, reply: str) -> Iterator[Item]:
    problem = prompt_problem(messages) or ("" if reply.strip() else "the reply is empty")
    yield LeftOut(problem) if problem else DemonstrationItem(messages, reply.strip())


def checked_prompt(messages: Messages) -> Iterator[Item]:
    problem = prompt_problem(messages)
    yield LeftOut(problem) if problem else PromptItem(messages)


def prompt_problem(messages: Messages) -> str:
    """Why these messages cannot be replied to; empty where they can."""
    if not messages or not any(m["content"].strip() for m in messages):
        return "the prompt is empty"
    if messages[-1]["role"] != "user":
        return "the prompt does not end with the user's turn"
    if any(not m["content"].strip() for m in messages):
        return "a message is empty"
    turns = [m["role"] for m in messages if m["role"] != "system"]
    return "" if all(a != b for a, b in pairwise(turns)) else "two turns of the same side in a row"


# --------------------------------------------------------------------------------------------------------------- parts


def conversation(value: Any, prompt: Any) -> Messages | None:
    """Messages from HH text, a list of turns, or a plain string; None where it is none of these."""
    if isinstance(value, list):
        return turns_of(value)
    if not isinstance(value, str):
        return None
    if TURN.match(value if value.startswith("\n\n") else f"\n\n{value}"):
        return dialogue(value if value.startswith("\n\n") else f"\n\n{value}")
    if prompt is None:
        return [{"role": "user", "content": value.strip()}] if value.strip() else None
    before = conversation(prompt, None)
    return [*before, {"role": "assistant", "content": value.strip()}] if before else None


def turns_of(value: list[Any]) -> Messages | None:
    messages = []
    for turn in value:
        if not isinstance(turn, dict):
            return None
        role = ROLES.get(str(turn.get("role") or turn.get("from")))
        content = turn.get("content", turn.get("value", turn.get("text")))
        if role is None or not isinstance(content, str):
            return None
        messages.append({"role": role, "content": content.strip()})
    return messages


def dialogue(text: str) -> Messages:
    """An HH transcript as messages."""
    parts = TURN.split(text)
    return [
        {"role": ROLES[who.lower()], "content": said.strip()}
        for who, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def has_text(record: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(record.get(key), str) for key in keys)


SHAPES: Final[list[tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], Iterator[Item]]]]] = [
    (lambda r: "chosen" in r and "rejected" in r, preference),
    (lambda r: {"prompt", "replies", "ranks"} <= r.keys(), ranked),
    (lambda r: isinstance(r.get("prompt"), dict) and "text" in r["prompt"], tree),
    (lambda r: isinstance(r.get("messages") or r.get("conversations"), list), chat),
    (lambda r: any(has_text(r, *p) for p in PAIRS), pair),
    (lambda r: any(isinstance(r.get(key), str) for key in ("prompt", "instruction", "question")), bare_prompt),
    (lambda r: has_text(r, "text"), document),
]
