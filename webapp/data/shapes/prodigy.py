"""Prodigy's annotations.

{prompt, response, answer: "accept" | "reject" | "ignore", _task_hash}          one reply: a judgment
{prompt, options: [{id, text}], accept: [id], answer, _task_hash}               the accepted replies over the others
{text, …, answer}                                                               a text: a document

`answer` is what the annotator did, never a reply. Source: prodi.gy/docs/api-interfaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.checks import judgment, ranking
from webapp.data.shapes.model import Item
from webapp.data.shapes.prompts import has_prompt, prompt_of
from webapp.data.shapes.questions import read_document
from webapp.data.shapes.row import Row, Skip, label_fields
from webapp.data.shapes.turns import reply_of

DONE: Final = ("accept", "reject", "ignore")
REPLIES: Final = ("response", "completion", "output", "reply", "generation")
ABOUT: Final = ("answer", "accept", "_input_hash", "_task_hash", "_view_id", "_timestamp", "_is_binary")
PEOPLE: Final = ("_annotator_id", "_session_id")


def is_annotation(row: Row) -> bool:
    marked = any(str(name).startswith("_") for name in row.record) or row.is_list("accept")
    marked = marked or (row.is_text("text") and not has_prompt(row))
    return row.peek("answer") in DONE and marked


def read_annotation(row: Row) -> Iterator[Item]:
    done = row.get("answer")
    row.use(*ABOUT)
    if done == "ignore":
        raise Skip("its annotator ignored it")
    if not has_prompt(row) and row.is_text("text"):
        yield from read_document(row)
        return
    fields = {**annotator_field(row), **label_fields(row)}
    if row.is_list("options"):
        options = row.get("options")
        if done == "reject":
            raise Skip("its annotator rejected it as a whole")
        yield ranking_of(row, options, fields)
        return
    name = row.first(REPLIES)
    if name is None:
        raise Skip("an annotation that says nothing of a reply")
    yield judgment(prompt_of(row), reply_of(row.get(name), row, name), done == "accept", **fields)


def ranking_of(row: Row, options: list[Any], fields: dict[str, Any]) -> Item:
    """The accepted options over the others."""
    accepted = row.peek("accept")
    if not isinstance(accepted, list) or not all(isinstance(option, dict) for option in options):
        raise Skip("its options or those that were accepted are no lists")
    ranks = [1.0 if option.get("id") in accepted else 2.0 for option in options]
    if not accepted:
        raise Skip("none of its options was accepted")
    question_row = Row({name: value for name, value in row.record.items() if name != "options"})
    messages = prompt_of(question_row)
    row.use(*question_row.used)
    return ranking(messages, [reply_of(option, row, "options") for option in options], ranks, **fields)


def annotator_field(row: Row) -> dict[str, str]:
    name = row.first(PEOPLE)
    row.use(*PEOPLE)
    return {"annotator": str(row.peek(name))[:200]} if name is not None else {}
