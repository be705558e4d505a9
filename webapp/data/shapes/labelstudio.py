"""Label Studio's exports.

{id, data: {prompt, answer1, …}, annotations: [{completed_by, was_cancelled, result: [{type, from_name, value}]}]} JSON
{id, prompt, answer1, answer2, comparison: "left", annotator, annotation_id}                                   JSON-MIN

pairwise: {selected: left | right}. ranker: {ranker: [ids]} or {ranker: {name: [ids]}}, best first.
textarea: {text: […]}. choices: {choices: […]}. rating: {rating: n}. Source: labelstud.io/guide/export, its templates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.argilla import argilla_messages
from webapp.data.shapes.forms import ASKED_NAMES, REPLY_NAME, Sheet, chosen, ranked_names, rated, written
from webapp.data.shapes.model import Item, LeftOut, Part
from webapp.data.shapes.prompts import contexts, system_turn
from webapp.data.shapes.row import Row, Skip, binary, number
from webapp.data.shapes.turns import reply_of

MIN_ABOUT: Final = (
    "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "completed_by", "project",
    "file_upload",
)  # fmt: skip
ITEM_LISTS: Final = ("items", "answers", "responses", "options", "candidates", "replies")
ABOUT: Final = (
    "id", "annotations", "data", "meta", "created_at", "updated_at", "inner_id", "total_annotations", "project",
    "cancelled_annotations", "total_predictions", "comment_count", "unresolved_comment_count",
    "last_comment_updated_at", "updated_by", "comment_authors", "file_upload", "drafts", "allow_skip",
)  # fmt: skip


def is_task(row: Row) -> bool:
    return row.is_dict("data") and row.is_list("annotations")


def read_task(row: Row) -> Iterator[Item | Part]:
    row.use(*ABOUT)
    if row.has("predictions") and not row.peek("predictions"):
        row.use("predictions")
    data = Row(row.get("data"))
    sheet = label_studio_sheet(data)
    row.nested.update(f"data.{name}" for name in data.unused())
    is_answered = False
    for annotation in row.get("annotations"):
        if not isinstance(annotation, dict) or annotation.get("was_cancelled") is True:
            continue
        results = annotation.get("result")
        for result in results if isinstance(results, list) else []:
            is_answered = True
            yield from label_studio_answer(sheet, result, completed_by(annotation.get("completed_by")))
    if not is_answered:
        raise Skip("nobody has answered it")


def completed_by(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def label_studio_sheet(data: Row) -> Sheet:
    """The prompt and the replies of a task: answers in columns of their own, or a list of {id, title, body}."""
    question_name = data.first((*ASKED_NAMES, "text"))
    if question_name is None:
        raise Skip("its data has no prompt (prompt, question, text, …)")
    sheet = Sheet(argilla_messages(data.get(question_name), data, question_name))
    for name in ITEM_LISTS:
        if data.is_list(name):
            for index, item in enumerate(data.get(name)):
                key = (
                    str(item["id"]) if isinstance(item, dict) and isinstance(item.get("id"), str | int) else str(index)
                )
                sheet.replies[key] = item_text(item, data, name)
    if not sheet.replies:
        for name, value in data.record.items():
            if name != question_name and REPLY_NAME.match(str(name)) and isinstance(value, str) and value.strip():
                data.use(name)
                sheet.replies[str(name)] = value
    beside = contexts(data, question_name)
    if beside and sheet.messages:
        last_turn = sheet.messages[-1]
        sheet.messages[-1] = {**last_turn, "content": "\n\n".join([last_turn["content"], *beside])}
    sheet.messages = [*system_turn(data, sheet.messages), *sheet.messages]
    return sheet


def item_text(item: Any, data: Row, name: str) -> str:
    if isinstance(item, dict):
        for key in ("body", "html", "text", "content", "title"):
            if isinstance(item.get(key), str) and item[key].strip():
                return str(item[key])
    return reply_of(item, data, name)


def label_studio_answer(sheet: Sheet, result: Any, person: str) -> Iterator[Item | Part]:
    if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
        yield LeftOut("an answer that is not an object with a value")
        return
    kind, value, question = str(result.get("type")), result["value"], str(result.get("from_name") or "")
    try:
        if kind == "pairwise":
            names = str(result.get("to_name") or "").split(",")
            yield from chosen(pair_in_order(sheet, names), value.get("selected"), question, annotator=person)
        elif kind == "ranker":
            yield ranked_names(sheet, ordered_names(value.get("ranker")), annotator=person)
        elif kind == "textarea":
            for text in value["text"] if isinstance(value.get("text"), list) else [value.get("text")]:
                yield from written(sheet, text, question, annotator=person)
        elif kind == "rating":
            about = sheet_of_reply(sheet, result.get("to_name"))
            yield from rated(about or sheet, value.get("rating"), "rating" if about else question, person)
        elif kind == "choices":
            choices = value.get("choices")
            choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
            about = sheet_of_reply(sheet, result.get("to_name")) if binary(choice) is not None else None
            yield from chosen(about or sheet, choice, question, annotator=person)
        else:
            yield LeftOut(f"an answer of type {kind[:40]}, which is not read")
    except Skip as skip:
        yield LeftOut(str(skip))


def sheet_of_reply(sheet: Sheet, name: Any) -> Sheet | None:
    """Of several replies, the one that an answer is about, where it names it."""
    if len(sheet.replies) < 2 or not isinstance(name, str) or name not in sheet.replies:
        return None
    return Sheet(sheet.messages, {name: sheet.replies[name]})


def pair_in_order(sheet: Sheet, names: list[str]) -> Sheet:
    """The two replies in the order in which they were shown: the answer's to_name names them, left first."""
    names = [name.strip() for name in names]
    if len(names) == 2 and all(name in sheet.replies for name in names):
        return Sheet(sheet.messages, {name: sheet.replies[name] for name in names})
    return sheet


def ordered_names(value: Any) -> list[tuple[float, str]]:
    """Names in their order, from a list or from the only list of an object."""
    if isinstance(value, dict):
        lists = [names for names in value.values() if isinstance(names, list) and names]
        if len(lists) != 1:
            raise Skip("a ranking in several buckets, whose order is not known")
        value = lists[0]
    if not isinstance(value, list):
        raise Skip("a ranking that is not a list")
    return [(float(index), str(name)) for index, name in enumerate(value)]


# ------------------------------------------------------------------------------------------------------------ JSON-MIN


def is_min(row: Row) -> bool:
    return row.has("annotation_id") and (row.has("annotator") or row.has("lead_time")) and not row.has("result")


def read_min(row: Row) -> Iterator[Item | Part]:
    row.use(*MIN_ABOUT)
    person = completed_by(row.peek("annotator"))
    field_row = Row({name: value for name, value in row.record.items() if name not in MIN_ABOUT})
    sheet = label_studio_sheet(field_row)
    row.use(*field_row.used)
    is_answered = False
    for question in [name for name in field_row.record if name not in field_row.used]:
        for item in min_answer(sheet, str(question), row.record[question], person):
            is_answered = True
            row.use(question)
            yield item
    unread = [str(name) for name in field_row.unused() if name not in row.used]
    if not is_answered and unread and len(sheet.replies) != 1:
        raise Skip(f"an answer to “{unread[0][:40]}” that is no verdict which is known")
    if not is_answered:
        yield from demonstrated(sheet, person)


def min_answer(sheet: Sheet, question: str, value: Any, person: str) -> Iterator[Item | Part]:
    """What a column says of the replies; columns that say nothing about them are passed over."""
    try:
        if isinstance(value, dict) and isinstance(value.get("ranker", value), dict | list):
            inner = value.get("ranker", value)
            lists = inner if isinstance(inner, list) else next((v for v in inner.values() if isinstance(v, list)), None)
            if lists and {str(name) for name in lists} == set(sheet.replies):
                yield ranked_names(sheet, ordered_names(inner), annotator=person)
        elif isinstance(value, list) and value and {str(name) for name in value} == set(sheet.replies):
            yield ranked_names(sheet, ordered_names(value), annotator=person)
        elif isinstance(value, str) and sheet.replies:
            verdicts = list(chosen(sheet, value, question, annotator=person))
            if not any(isinstance(item, LeftOut) for item in verdicts):
                yield from verdicts
        elif number(value) is not None and len(sheet.replies) == 1:
            yield from rated(sheet, value, question, person)
    except Skip as skip:
        yield LeftOut(str(skip))


def demonstrated(sheet: Sheet, person: str) -> Iterator[Item]:
    """A single reply beside the prompt, and no verdict on it: the annotator wrote it."""
    if len(sheet.replies) != 1:
        raise Skip("nobody has answered it")
    (question,) = sheet.replies
    yield from written(Sheet(sheet.messages), sheet.texts[0], question, annotator=person)
