"""Conversations: chats, and dialogues between a user and a system.

{messages: [{role, content}]} {conversations: [{from, value}]}     OpenAI, ShareGPT; with system text and masked turns
{segments: [{label, text}]}                                         Axolotl's input_output: label true is learned
{turns: [{speaker, utterance}]} {utterances: [{speaker, text}]}     Schema-Guided Dialogue, Taskmaster
{context: "[…]", generation: "{…}", reward}                         Taskmaster with rewards: 1 is good, 0 is bad
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.checks import chat_item, demonstration, judgment
from webapp.data.shapes.model import Item, Messages
from webapp.data.shapes.prompts import CHATS, with_system
from webapp.data.shapes.row import Row, Skip, binary, label_fields, number
from webapp.data.shapes.turns import Chat, parse_chat, parse_json_text

SPEAKERS: Final = {"user": "user", "system": "assistant", "assistant": "assistant", "agent": "assistant"}


def is_dialog(row: Row) -> bool:
    return any(row.is_list(name) for name in CHATS)


def read_dialog(row: Row) -> Iterator[Item]:
    name = next(name for name in CHATS if row.is_list(name))
    chat = with_system(parse_chat(row.get(name), row, name), row)
    for column in ("prompt", "instruction", "question"):  # the same text, a second time
        if row.is_text(column) and any(m["content"] == row.peek(column) for m in chat.messages):
            row.use(column)
    yield chat_item(chat, row, **label_fields(row))


def is_segments(row: Row) -> bool:
    return row.is_list("segments") and all(isinstance(segment, dict) for segment in row.peek("segments"))


def read_segments(row: Row) -> Iterator[Item]:
    """Segments in turn: what is not learned is asked, what is learned answers."""
    segments = row.get("segments")
    messages: Messages = []
    for index, segment in enumerate(segments):
        learned, text = segment.get("label"), segment.get("text")
        if not isinstance(learned, bool) or not isinstance(text, str):
            raise Skip("a segment without a label (true or false) and a text")
        if learned is not bool(index % 2):
            raise Skip("its segments are not question and answer in turn")
        messages.append({"role": "assistant" if learned else "user", "content": text})
    if not messages:
        raise Skip("it has no segments")
    yield chat_item(Chat(messages), row, **label_fields(row))


def is_dialogue(row: Row) -> bool:
    return any(
        isinstance(turns := row.record.get(name), list)
        and bool(turns)
        and all(isinstance(turn, dict) and isinstance(turn.get("speaker"), str) for turn in turns)
        for name in ("turns", "utterances")
    )


def read_dialogue(row: Row) -> Iterator[Item]:
    name = "turns" if row.is_list("turns") else "utterances"
    turns = [{**turn, "speaker": SPEAKERS.get(turn["speaker"].lower(), turn["speaker"])} for turn in row.get(name)]
    yield chat_item(parse_chat(turns, row, name), row, **label_fields(row))


def is_talk(row: Row) -> bool:
    content = row.peek("content")
    return isinstance(content, list) and bool(content) and all(isinstance(t, dict) and "agent" in t for t in content)


def read_talk(_: Row) -> Iterator[Item]:
    raise Skip("two people talk, and neither of them is the assistant")


def is_rewarded(row: Row) -> bool:
    return row.is_text("context", "generation") and row.has("reward")


def read_rewarded(row: Row) -> Iterator[Item]:
    turns, generation = parse_json_text(row.get("context")), parse_json_text(row.get("generation"))
    good = binary(number(row.get("reward")))
    if good is None:
        raise Skip("its reward is neither 1 nor 0")
    if not isinstance(turns, list) or not isinstance(generation, dict):
        raise Skip("“context” or “generation” holds no turns")
    messages = parse_chat([as_turn(turn) for turn in turns], row, "context").messages
    (reply,) = parse_chat([as_turn(generation)], row, "generation").messages or [{"content": ""}]
    yield judgment(messages, reply["content"], good, **label_fields(row))


def as_turn(turn: Any) -> Any:
    if not isinstance(turn, dict):
        raise Skip("a turn that is not an object")
    if "api" in turn:
        raise Skip("a turn that calls a tool, which is not read")
    role = str(turn.get("role")).lower()
    return {**turn, "role": "assistant" if role == "agent" else role}


# ---------------------------------------------------------------------------------------------------- self-instruct


def is_instances(row: Row) -> bool:
    return row.is_text("instruction") and row.is_list("instances")


def read_instances(row: Row) -> Iterator[Item]:
    """{instruction, instances: [{input, output}]}: a demonstration an instance (github.com/yizhongw/self-instruct)."""
    instruction, instances = row.get("instruction"), row.get("instances")
    if not instances:
        raise Skip("it has no instances")
    for instance in instances:
        fields = instance if isinstance(instance, dict) else {}
        question, answer = fields.get("input", ""), fields.get("output")
        if not isinstance(question, str) or not isinstance(answer, str):
            raise Skip("an instance without the texts input and output")
        content = f"{instruction}\n\n{question}" if question.strip() else instruction
        yield demonstration([{"role": "user", "content": content}], answer, **label_fields(row))
