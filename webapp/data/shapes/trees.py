"""Open-Assistant's message trees: siblings with ranks are a ranking, the best of them demonstrates.

{prompt: {text, role, replies: [{text, role, rank, replies}]}}     a tree a row
{message_id, parent_id, message_tree_id, text, role, rank}         a message a row; a tree's messages stand together
Source: github.com/LAION-AI/Open-Assistant, docs/data/schemas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.checks import demonstration, is_blank_text, prompt, ranking
from webapp.data.shapes.model import Item, LeftOut, Messages, Part, TreeMessage
from webapp.data.shapes.row import Row, Skip, number
from webapp.data.shapes.turns import ROLES

DELETED: Final = "a message that was deleted or failed review"
READ: Final = ("message_id", "parent_id", "message_tree_id", "text", "role", "rank", "deleted", "review_result")
Node = dict[str, Any]


def is_tree(row: Row) -> bool:
    value = row.peek("prompt")
    return isinstance(value, dict) and "text" in value


def read_tree(row: Row) -> Iterator[Item]:
    row.use("message_tree_id", "tree_state")
    yield from tree_items(row.get("prompt"))


def is_message(row: Row) -> bool:
    return row.is_text("message_id", "message_tree_id", "text", "role")


def read_message(row: Row) -> Iterator[Part]:
    row.use(*READ)
    yield TreeMessage(row.peek("message_tree_id"), row.record)


def messages_as_tree(nodes: list[Node]) -> Iterator[Item]:
    """The items of a tree whose messages came in rows of their own."""
    by_id = {str(node["message_id"]): {**node, "replies": []} for node in nodes}
    roots = []
    for node in by_id.values():
        parent = node.get("parent_id")
        if parent is None or parent == "":
            roots.append(node)
        elif isinstance(parent, str) and parent in by_id:
            by_id[parent]["replies"].append(node)
        else:
            yield LeftOut("a reply to a message that is not in the file")
    for root in roots:
        yield from tree_items(root)


def tree_items(root: Node) -> Iterator[Item]:
    pending: list[tuple[Node, Messages]] = [(root, [])]
    while pending:
        node, before = pending.pop()
        if not is_usable(node):
            yield LeftOut(DELETED)
            continue
        role = ROLES.get(str(node.get("role")).lower())
        if role is None:
            yield LeftOut(f"a message of the role {str(node.get('role'))[:40]}, which is not read")
            continue
        here = [*before, {"role": role, "content": str(node["text"])}]
        replies = replies_of(node)
        pending.extend((reply, here) for reply in replies)
        if role == "user":
            yield from siblings(here, [reply for reply in replies if is_usable(reply)])


def is_usable(node: Node) -> bool:
    text = node.get("text")
    deleted, passed = node.get("deleted"), node.get("review_result")
    return isinstance(text, str) and not is_blank_text(text) and not is_true(deleted) and passed is not False


def is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def replies_of(node: Node) -> list[Node]:
    replies = node.get("replies")
    return [reply for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []


def siblings(messages: Messages, replies: list[Node]) -> Iterator[Item]:
    if not replies:
        yield from kept(lambda: prompt(messages))
        return
    rated = [(rank, reply["text"]) for reply in replies if (rank := number(reply.get("rank"))) is not None]
    if len(rated) > 1:
        yield from kept(lambda: ranking(messages, [text for _, text in rated], [rank for rank, _ in rated]))
    best = min(rated, key=lambda pair: pair[0])[1] if rated else replies[0]["text"]
    yield from kept(lambda: demonstration(messages, best))


def kept(make: Any) -> Iterator[Item]:
    """The item, or why there is none; the rest of the tree is read all the same."""
    try:
        yield make()
    except Skip as skip:
        yield LeftOut(str(skip))
