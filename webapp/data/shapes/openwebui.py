"""Open WebUI's exports.

{type: "rating", data: {rating}, meta: {message_id}, snapshot: {chat}}      feedback
{id, title, chat: {history: {messages: {id: {parentId, role, content, annotation}}, currentId}, messages}}      chats

A rating is a judgment of its reply, and a ranking against siblings that were rated otherwise. A chat is a demonstration
of the branch shown, unless its replies were rated. Source: github.com/open-webui/open-webui, backend models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.checks import chat_item, judgment, ranking
from webapp.data.shapes.model import Item, LeftOut
from webapp.data.shapes.row import Row, Skip, binary
from webapp.data.shapes.turns import Chat, parse_chat

ABOUT: Final = (
    "id", "user_id", "title", "created_at", "updated_at", "version", "type", "archived", "pinned", "share_id",
    "folder_id", "meta", "data", "snapshot", "chat", "user",
)  # fmt: skip
Nodes = dict[str, dict[str, Any]]


def is_feedback(row: Row) -> bool:
    return row.is_dict("snapshot") and row.is_dict("data") and row.peek("type") == "rating"


def read_feedback(row: Row) -> Iterator[Item]:
    row.use(*ABOUT)
    data, meta = row.get("data"), row.peek("meta")
    outer = row.peek("snapshot").get("chat")
    nodes, _ = nodes_of(outer.get("chat") if isinstance(outer, dict) else None)
    rated = str(meta.get("message_id")) if isinstance(meta, dict) else ""
    good = binary(data.get("rating"))
    if good is None:
        raise Skip("its rating is neither 1 nor -1")
    if rated not in nodes:
        raise Skip("the reply that was rated is not in its snapshot")
    node = nodes[rated]
    node["annotation"] = {"rating": 1 if good else -1}
    yield from rated_items(node, nodes, str(row.peek("user_id") or ""))


def is_openwebui_chat(row: Row) -> bool:
    chat = row.peek("chat")
    return isinstance(chat, dict) and (isinstance(chat.get("messages"), list) or isinstance(chat.get("history"), dict))


def read_openwebui_chat(row: Row) -> Iterator[Item]:
    row.use(*ABOUT)
    chat = row.get("chat")
    nodes, current = nodes_of(chat)
    person = str(row.peek("user_id") or "")
    rated = [node for node in nodes.values() if rating_of(node) is not None]
    for node in rated:
        yield from rated_items(node, nodes, person)
    if rated:
        return
    system = (
        chat.get("system") or (chat.get("params") or {}).get("system")
        if isinstance(chat.get("params"), dict | None)
        else None
    )
    messages = branch_to(current, nodes) if current in nodes else chat.get("messages")
    parsed = parse_chat(messages, Row({}), "messages")
    if isinstance(system, str) and system.strip():
        parsed = Chat([{"role": "system", "content": system}, *parsed.messages])
    yield chat_item(parsed, row)


def nodes_of(chat: Any) -> tuple[Nodes, str]:
    """The messages of a chat by id, and which of them is in sight."""
    history = chat.get("history") if isinstance(chat, dict) else None
    messages = history.get("messages") if isinstance(history, dict) else None
    nodes = (
        {str(key): dict(node) for key, node in messages.items() if isinstance(node, dict)}
        if isinstance(messages, dict)
        else {}
    )
    return nodes, str(history.get("currentId")) if isinstance(history, dict) else ""


def rating_of(node: dict[str, Any]) -> bool | None:
    annotation = node.get("annotation")
    return binary(annotation.get("rating")) if isinstance(annotation, dict) else None


def rated_items(node: dict[str, Any], nodes: Nodes, person: str) -> Iterator[Item]:
    """The judgment of a rated reply, and a ranking of it with siblings that were rated otherwise."""
    try:
        good = rating_of(node)
        before = parse_chat(branch_to(str(node.get("parentId")), nodes), Row({}), "messages").messages
        yield judgment(before, content(node), good is True, annotator=person)
        others = [
            sibling
            for sibling in nodes.values()
            if sibling.get("parentId") == node.get("parentId")
            and rating_of(sibling) is not None
            and rating_of(sibling) != good
        ]
        compared = [
            sibling for sibling in nodes.values() if sibling is node or any(sibling is rival for rival in others)
        ]
        if others:
            ranks = [1.0 if rating_of(sibling) else 2.0 for sibling in compared]
            yield ranking(before, [content(sibling) for sibling in compared], ranks, annotator=person)
    except Skip as skip:
        yield LeftOut(str(skip))


def content(node: dict[str, Any]) -> str:
    text = node.get("content")
    if not isinstance(text, str):
        raise Skip("a rated reply has no text")
    return text


def branch_to(node_id: str, nodes: Nodes) -> list[dict[str, Any]]:
    """The messages from the first down to this one, without what was said about them."""
    turns: list[dict[str, Any]] = []
    for _ in range(len(nodes)):
        node = nodes.get(node_id)
        if node is None:
            break
        turns.insert(0, {"role": node.get("role"), "content": node.get("content")})
        node_id = str(node.get("parentId"))
    return turns
