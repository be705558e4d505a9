"""Turns of a conversation: chat messages in their many spellings, and transcripts in one text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from webapp.data.shapes.model import Messages
from webapp.data.shapes.row import Row, Skip, is_blank, number

ROLES: Final = {
    "human": "user", "user": "user", "prompter": "user", "customer": "user", "person": "user",
    "system": "system", "developer": "system",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "ai": "assistant", "bing": "assistant", "bard": "assistant", "claude": "assistant", "chatbot": "assistant",
}  # fmt: skip
READ_ROLES: Final = "system, user and assistant are"
ROLE_KEYS: Final = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS: Final = ("content", "value", "text", "message", "utterance")
LEARNED_KEYS: Final = ("training", "train", "trainable", "loss")
MASK_KEYS: Final = ("weight", "mask", *LEARNED_KEYS)
REASONING: Final = ("reasoning_content", "reasoning", "thinking")
UNLEARNED_REASONING: Final = (
    "the reasoning beside a reply is not learned; to have it learned, put it into the reply as <think>…</think>"
)
TURN: Final = re.compile(r"\n\n(Human|Assistant):")
MARKED_TURN: Final = re.compile(r"\n?<extra_id_1>(User|Assistant|System)\n?")


@dataclass
class Chat:
    """`masked` are indices of assistant messages that are context only."""

    messages: Messages = field(default_factory=list)
    masked: list[int] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------- chat messages


def parse_chat(value: Any, row: Row, column: str) -> Chat:
    """Messages from a list of {role, content}, {from, value} and the like. Raises Skip, naming the turn."""
    if not isinstance(value, list):
        raise Skip(f"“{column}” is not a list of messages")
    value = told_apart(value, column)
    if not all(isinstance(turn, dict) for turn in value):
        raise Skip(f"“{column}” is not a list of {{role, content}}")
    chat = Chat()
    roles = [turn_role(turn, position) for position, turn in enumerate(value, 1)]
    for position, (turn, role) in enumerate(zip(value, roles, strict=True), 1):
        content = content_of(turn, position)
        note_unused(turn, row, column)
        if role == "assistant" and any(not is_blank(turn.get(key)) for key in REASONING):
            row.note(UNLEARNED_REASONING)
        if role == "system" and not content.strip():
            continue
        if role == "assistant" and is_masked(turn, position):
            chat.masked.append(len(chat.messages))
        chat.messages.append({"role": role, "content": content})
    return chat


def told_apart(value: list[Any], column: str) -> list[Any]:
    """Turns as messages where they come in turn (LIMA), or as pairs of input and output (Capybara)."""
    if column in ("conversations", "conversation") and value and all(isinstance(text, str) for text in value):
        return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(value)]
    if value and all(isinstance(turn, dict) and turn.keys() == {"input", "output"} for turn in value):
        return [
            {"role": role, "content": turn[name]}
            for turn in value
            for role, name in (("user", "input"), ("assistant", "output"))
        ]
    return value


def turn_role(turn: dict[str, Any], position: int) -> str:
    named = next((turn[key] for key in ROLE_KEYS if turn.get(key) is not None), None)
    if not isinstance(named, str):
        raise Skip(f"turn {position} has no role")
    role = ROLES.get(named.lower())
    if role is None:
        raise Skip(f"turn {position}: {named[:40]} is no role that is read ({READ_ROLES})")
    return role


def content_of(turn: dict[str, Any], position: int) -> str:
    if not is_blank(turn.get("tool_calls")) or not is_blank(turn.get("function_call")):
        raise Skip(f"turn {position}: calls a tool, which is not read")
    content = next((turn[key] for key in CONTENT_KEYS if turn.get(key) is not None), None)
    if content is None:
        raise Skip(f"turn {position} has no content")
    return text_of(content, position)


def text_of(content: Any, position: int) -> str:
    """A text, or the text parts of a message put together."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Skip(f"turn {position}: its content is not text")
    texts = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif (
            isinstance(block, dict) and isinstance(block.get("text"), str) and "text" in str(block.get("type", "text"))
        ):
            texts.append(block["text"])
        else:
            kind = block.get("type") if isinstance(block, dict) else type(block).__name__
            raise Skip(f"turn {position}: a part of type {str(kind)[:40]}, which is not text")
    return "".join(texts)


def is_masked(turn: dict[str, Any], position: int) -> bool:
    """Does the file say that this turn is not to be learned? (OpenAI: weight 0; Axolotl: training false; ms-swift:
    loss false)"""
    for key in LEARNED_KEYS:
        if turn.get(key) not in (None, True, False):
            raise Skip(f"turn {position}: {key} is neither true nor false")
    if not is_blank(turn.get("mask")):
        raise Skip(f"turn {position}: it has a mask, which is not read")
    if not is_blank(turn.get("train_detail")) or not is_blank(turn.get("training_detail")):
        raise Skip(f"turn {position}: parts of it are not to be learned, which is not read")
    if any(turn.get(key) is not None and not turn[key] for key in LEARNED_KEYS):
        return True
    if turn.get("weight") is None:
        return False
    weight = number(turn["weight"])
    if weight not in (0, 1):
        raise Skip(f"turn {position}: a turn's weight can be 0 or 1")
    return weight == 0


def note_unused(turn: dict[str, Any], row: Row, column: str) -> None:
    if len(turn) <= 2:
        return
    for key, value in turn.items():
        if key not in ROLE_KEYS and key not in CONTENT_KEYS and key not in MASK_KEYS and not is_blank(value):
            row.nested.add(f"{column}[].{str(key)[:60]}")


# --------------------------------------------------------------------------------------------------------- transcripts


def is_transcript(text: str) -> bool:
    """Is the text a dialogue of Human: and Assistant: turns (as in HH), or of <extra_id_1> turns (as in HelpSteer)?"""
    return (
        text.startswith(("\n\nHuman:", "<extra_id_"))
        or "<extra_id_1>" in text
        or (text.startswith("Human:") and "\n\nAssistant:" in text)
    )


def parse_transcript(text: str, *, is_prompt: bool = True) -> Messages:
    """The transcript as messages, less the one space after each colon. In a prompt, an empty last Assistant: is a
    place for the reply and is dropped."""
    if "<extra_id_" in text:
        return parse_marked(text)
    segments = TURN.split(text if text.startswith("\n\n") else f"\n\n{text}")
    messages = [
        {"role": ROLES[who.lower()], "content": content.removeprefix(" ")}
        for who, content in zip(segments[1::2], segments[2::2], strict=True)
    ]
    if is_prompt and messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        messages.pop()
    return messages


def parse_marked(text: str) -> Messages:
    system_text, *segments = MARKED_TURN.split(text)
    system_text = system_text.removeprefix("<extra_id_0>System\n")
    messages = [{"role": "user", "content": system_text}] if system_text.strip() else []
    messages += [
        {"role": ROLES[who.lower()], "content": content}
        for who, content in zip(segments[::2], segments[1::2], strict=True)
    ]
    if messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        messages.pop()
    return messages


def ends_with_marker(text: str) -> bool:
    """Does a transcript end with an Assistant: that waits for its reply, without a space after it?"""
    return text.endswith("\n\nAssistant:")


# -------------------------------------------------------------------------------------------------------------- others


def parse_json_text(value: Any) -> Any:
    """What a text holds where it is JSON of a list or an object; the value as it is where it is not."""
    if isinstance(value, str) and value[:1] in "[{" and value:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def is_turn(value: dict[str, Any]) -> bool:
    """Does an object say whose turn it is? An author may also be the person who wrote an answer."""
    if any(value.get(key) is not None for key in ("role", "from", "speaker")):
        return True
    return any(isinstance(value.get(key), str) and value[key].lower() in ROLES for key in ("author", "sender"))


def reply_of(value: Any, row: Row, column: str) -> str:
    """One reply: a text, a message, a list with one message of the assistant, or an object with a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        chat = parse_chat(value, row, column)
        if len(chat.messages) != 1 or chat.messages[0]["role"] != "assistant":
            raise Skip(f"“{column}” is not a single message of the assistant")
        return chat.messages[0]["content"]
    if isinstance(value, dict):
        if is_turn(value):
            return reply_of([value], row, column)
        for key in ("text", "content", "value", "response", "answer", "completion", "output"):
            if isinstance(value.get(key), str):
                return str(value[key])
    raise Skip(f"“{column}” is not text")
