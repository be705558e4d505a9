"""ChatGPT's export of a person's conversations (conversations.json).

{title, mapping: {id: {message: {author: {role}, content: {content_type, parts}}, parent}}, current_node}

The branch shown is a demonstration, as other chats are; what the others say is not read. Messages that were never
shown (empty ones, and what the program told the model) are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.checks import chat_item
from webapp.data.shapes.model import Item
from webapp.data.shapes.row import Row, Skip
from webapp.data.shapes.turns import parse_chat

TEXTS: Final = ("text", "multimodal_text")
REASONING: Final = ("thoughts", "reasoning_recap")
ABOUT: Final = (
    "id", "conversation_id", "title", "create_time", "update_time", "mapping", "current_node", "moderation_results",
    "is_archived", "is_starred", "default_model_slug", "safe_urls", "blocked_urls",
)  # fmt: skip
OTHER_BRANCHES: Final = "a chat has other branches than the one in sight, which are not read"


def is_openai_chat(row: Row) -> bool:
    mapping = row.peek("mapping")
    return isinstance(mapping, dict) and all(isinstance(node, dict) and "message" in node for node in mapping.values())


def read_openai_chat(row: Row) -> Iterator[Item]:
    row.use(*ABOUT)
    nodes = {str(key): node for key, node in row.get("mapping").items()}
    node_id = str(row.peek("current_node"))
    if node_id not in nodes:
        raise Skip("its current_node is not among its messages")
    branch: list[dict[str, Any]] = []
    for _ in range(len(nodes)):
        node = nodes.get(node_id)
        if node is None:
            break
        branch.insert(0, node)
        node_id = str(node.get("parent"))
    if len(branch) < len(nodes):
        row.note(OTHER_BRANCHES)
    turns = [turn for node in branch if (turn := turn_of(node.get("message"))) is not None]
    yield chat_item(parse_chat(turns, row, "mapping"), row)


def turn_of(message: Any) -> dict[str, Any] | None:
    """A message as {role, content}; None for one that was never shown."""
    if not isinstance(message, dict):
        return None
    author, content, about = message.get("author"), message.get("content"), message.get("metadata")
    hidden = isinstance(about, dict) and about.get("is_visually_hidden_from_conversation") is True
    if not isinstance(author, dict) or not isinstance(content, dict):
        raise Skip("a message without an author or a content")
    role, kind = author.get("role"), content.get("content_type")
    if role == "system" and (hidden or not any(content.get("parts") or [])):
        return None
    if role == "assistant" and kind in REASONING:
        return None
    if kind not in TEXTS or role == "tool" or message.get("recipient", "all") not in ("all", None):
        raise Skip(f"a message of the role {str(role)[:40]} and the type {str(kind)[:40]}, which is not read")
    texts = content.get("parts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Skip("a message with a part that is not text")
    return {"role": role, "content": "".join(texts)}
