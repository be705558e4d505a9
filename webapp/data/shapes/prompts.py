"""The prompt of a row, with all the context that the row carries: system text, earlier turns, passage, choices."""

from __future__ import annotations

import string
from typing import Any, Final

from webapp.data.shapes.model import Messages
from webapp.data.shapes.row import Row, Skip, is_blank
from webapp.data.shapes.turns import Chat, ends_with_marker, is_transcript, parse_chat, parse_transcript

ASKED: Final = ("instruction", "prompt", "question", "query", "problem", "inputs", "input")
SYSTEMS: Final = ("system", "system_prompt", "system_message", "system_instruction")
HISTORIES: Final = ("history", "chat_history", "conversation_history")
CONTEXTS: Final = ("context", "input", "passage", "paragraph", "document", "article", "background", "body")
MEDIA: Final = ("images", "image", "videos", "video", "audios", "audio")
CHOICES: Final = ("choices", "options")
CHOICE_COLUMNS: Final = (  # a choice a column, as in BBQ, MedMCQA and tables
    ("ans0", "ans1", "ans2"), ("A", "B", "C", "D", "E"), ("opa", "opb", "opc", "opd"),
    ("option_a", "option_b", "option_c", "option_d", "option_e"), ("option1", "option2", "option3", "option4"),
    ("option_1", "option_2", "option_3", "option_4"), ("choice1", "choice2", "choice3", "choice4"),
    ("choice_a", "choice_b", "choice_c", "choice_d"),
)  # fmt: skip
CHATS: Final = ("messages", "conversations", "conversation")


def has_prompt(row: Row, columns: tuple[str, ...] = ASKED) -> bool:
    return any(isinstance(row.record.get(name), str | list) for name in (*columns, *CHATS))


def prompt_of(row: Row, *columns: str) -> Messages:
    """The conversation that the row asks to answer, built from the first of the columns (any that asks, where none is
    named) and from whatever context stands beside it. Raises Skip for context that cannot be put into words."""
    column = row.first(columns or (*ASKED, *CHATS))
    if column is None:
        raise Skip("the prompt is empty")
    value = row.get(column)
    if isinstance(value, list):
        messages = parse_chat(value, row, column).messages
    elif not isinstance(value, str):
        raise Skip(f"“{column}” is not text")
    elif is_transcript(value):
        messages = parse_transcript(value)
    else:
        messages = [{"role": "user", "content": value}]
    return with_context(messages, row, column)


def after_marker(reply: str, row: Row) -> str:
    """The reply, less the space that belongs to the Assistant: at the end of its transcript of a prompt."""
    prompt = row.peek(row.first((*ASKED, *CHATS)) or "")
    if not isinstance(prompt, str) or not is_transcript(prompt):
        return reply
    if not ends_with_marker(prompt) and reply.startswith("\n\nAssistant:"):
        return reply.removeprefix("\n\nAssistant:").removeprefix(" ")
    return reply.removeprefix(" ") if ends_with_marker(prompt) else reply


def with_context(messages: Messages, row: Row, column: str) -> Messages:
    """The messages with the row's system text, earlier turns, passage and choices."""
    if messages and messages[-1]["role"] == "user":
        texts = [messages[-1]["content"], *contexts(row, column), *choices(row)]
        if len(texts) > 1:
            messages = [*messages[:-1], {"role": "user", "content": "\n\n".join(texts)}]
    earlier = [] if column == "history" else history(row)
    return [*system_turn(row, messages), *earlier, *messages]


def with_system(chat: Chat, row: Row) -> Chat:
    """A chat with the system text that stands beside it."""
    refuse_tools(row)
    before = [*system_turn(row, chat.messages), *history(row)]
    return Chat([*before, *chat.messages], [index + len(before) for index in chat.masked])


def system_turn(row: Row, messages: Messages) -> Messages:
    """The system text beside the prompt as a turn, unless the conversation has the same one already."""
    for name in SYSTEMS:
        value = row.peek(name)
        if isinstance(value, str):
            row.use(name)
            if value.strip() and {"role": "system", "content": value} not in messages:
                return [{"role": "system", "content": value}]
        elif not is_blank(value):
            raise Skip(f"“{name}” is not text")
    return []


def contexts(row: Row, column: str) -> list[str]:
    texts = []
    for name in CONTEXTS:
        value = row.peek(name)
        if name == column or value is None:
            continue
        if not isinstance(value, str):
            if is_blank(value):
                continue
            raise Skip(f"“{name}” is not text")
        row.use(name)
        if value.strip():
            texts.append(value)
    return texts


def history(row: Row) -> Messages:
    """Earlier turns: pairs of question and answer (as in LLaMA-Factory), or messages."""
    name = row.first(HISTORIES)
    value = row.peek(name or "")
    if name is None or is_blank(value):
        return []
    row.use(name)
    if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        return parse_chat(value, row, name).messages
    if not isinstance(value, list):
        raise Skip(f"“{name}” is not a list of turns")
    turns: Messages = []
    for pair in value:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise Skip(f"“{name}” is not a list of pairs of question and answer")
        turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]
    return turns


def choices(row: Row) -> list[str]:
    """The choices of a question, one a line: A. iron."""
    for name in CHOICES:
        value = row.peek(name)
        if is_blank(value):
            continue
        row.use(name)
        return [choice_lines(value, name)]
    for names in CHOICE_COLUMNS:
        present = [name for name in names if row.is_text(name)]
        if len(present) > 1 and present == list(names[: len(present)]):
            row.use(*present)
            return [choice_lines([row.peek(name) for name in present], present[0])]
    return []


def choice_lines(value: Any, name: str) -> str:
    if isinstance(value, dict) and value and all(isinstance(text, str) for text in value.values()):  # {"A": "…"}
        value = [{"label": label, "text": text} for label, text in value.items()]
    elif isinstance(value, dict):  # {"text": [...], "label": [...]}
        value = [
            {"label": label, "text": text}
            for label, text in zip(list_of(value.get("label")), list_of(value.get("text")), strict=False)
        ]
    if not isinstance(value, list) or not value or len(value) > len(string.ascii_uppercase):
        raise Skip(f"“{name}” is not a list of choices")
    lines = []
    for letter, choice in zip(string.ascii_uppercase, value, strict=False):
        label, text = letter, choice
        if isinstance(choice, dict):
            label, text = choice.get("label", letter), choice.get("text")
        if not isinstance(text, str | int | float) or not isinstance(label, str | int):
            raise Skip(f"“{name}” is not a list of choices")
        lines.append(f"{label}. {text}")
    return "\n".join(lines)


def list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def refuse_tools(row: Row) -> None:
    """A chat that offers tools means something else without them; so does one with pictures."""
    for name in MEDIA:
        if not is_blank(row.peek(name)):
            raise Skip(f"“{name}” belongs to it, and only text is read")
    for name in ("tools", "functions"):
        value = row.peek(name)
        if is_blank(value) or value == "[]":
            row.use(name)
            continue
        raise Skip("it offers tools to the assistant, which are not read")
