"""Questions with their answers, prompts alone, and documents.

{instruction, context?, response}    Dolly; {instruction, input?, output, system?, history?} Alpaca; {question, answer};
                                     {prompt, completion} TRL, texts or messages; {system_prompt, question, response}
{question, context, answers}         a question with its passage (SQuAD and the like): a prompt
{question, choices, answer: 1}       a question with its choices: a prompt
{turns: ["…", "…"]}                  MT-bench: the first turn, for the later ones need a reply first
{prompt} {instruction} {question}    prompts; TRL's prompt-only form too
{text}                               a document
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from webapp.data.shapes.checks import BROKEN, demonstration, is_blank_text, is_broken, prompt
from webapp.data.shapes.model import DocumentItem, Item, LeftOut
from webapp.data.shapes.prompts import (
    ASKED,
    after_marker,
    choice_lines,
    prompt_of,
    refuse_tools,
)
from webapp.data.shapes.row import Row, Skip, is_blank, label_fields, split_field
from webapp.data.shapes.turns import reply_of

ANSWERS: Final = (
    "response", "output", "completion", "answer", "reply", "solution", "target", "targets", "answer_text",
    "generation",
)  # fmt: skip


def answer_column(row: Row) -> str | None:
    """The column that answers, empty ones too: a row with an empty answer is no prompt."""
    names = [name for name in ANSWERS if name in row.record and isinstance(row.record[name], str | dict | list | None)]
    names = [
        name for name in names if name != "answer" or not isinstance(row.record[name], list) or of_turns(row, name)
    ]
    column = row.first(names)
    return column if column is not None else (names[0] if names else None)


def of_turns(row: Row, name: str) -> bool:
    value = row.record[name]
    return bool(value) and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)


def asked_column(row: Row) -> str | None:
    return row.first([name for name in ASKED if isinstance(row.record.get(name), str | list)])


def is_answered(row: Row) -> bool:
    return asked_column(row) is not None and answer_column(row) is not None


def read_answered(row: Row) -> Iterator[Item]:
    question_column, column = asked_column(row) or "", answer_column(row) or ""
    if question_column == "input" and row.is_text("inputs"):
        question_column = "inputs"
    refuse_tools(row)
    value = row.get(column)
    if is_blank(value):
        raise Skip("the reply is empty")
    reply = after_marker(reply_of(value, row, column), row)
    yield demonstration(prompt_of(row, question_column), reply, **label_fields(row))


def is_turns(row: Row) -> bool:
    turns = row.peek("turns")
    return isinstance(turns, list) and bool(turns) and all(isinstance(turn, str) for turn in turns)


def read_turns(row: Row) -> Iterator[Item]:
    first_turn, *later_turns = row.get("turns")
    yield prompt([{"role": "user", "content": first_turn}], **split_field(row))
    if later_turns:
        yield LeftOut("a later turn, which needs the reply before it")


def is_stem(row: Row) -> bool:
    return row.is_dict("question") and isinstance(row.peek("question").get("stem"), str)


def read_stem(row: Row) -> Iterator[Item]:
    question = row.get("question")
    content = f"{question['stem']}\n\n{choice_lines(question.get('choices'), 'question.choices')}"
    yield prompt([{"role": "user", "content": content}], **split_field(row))


def is_prompt(row: Row) -> bool:
    return asked_column(row) is not None


def read_prompt(row: Row) -> Iterator[Item]:
    refuse_tools(row)
    yield prompt(prompt_of(row, asked_column(row) or ""), **split_field(row))


def is_document(row: Row) -> bool:
    return row.is_text("text")


def read_document(row: Row) -> Iterator[Item]:
    text = row.get("text")
    if is_blank_text(text):
        raise Skip("empty text")
    if is_broken(text):
        raise Skip(BROKEN)
    row.use("format")
    yield DocumentItem(text, "html" if row.peek("format") == "html" else "text")
