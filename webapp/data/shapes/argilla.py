"""Argilla's records.

{fields: {instruction, response-1, …}, responses: {question: [{value, user_id, status}]}}     Argilla 2
{instruction, response, quality: [{value, user_id, status}]}                                   Argilla 1's table
{instruction, generations, "ranking.responses", "ranking.responses.users", "….status"}         Argilla's flat table

Only submitted answers count, one label a person. Source: docs.argilla.io, "Import and export datasets".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.forms import ASKED_NAMES, REPLY_NAME, Sheet, by_place, chosen, ranked_names, rated, written
from webapp.data.shapes.model import Item, LeftOut, Messages, Part
from webapp.data.shapes.prompts import SYSTEMS, contexts, system_turn
from webapp.data.shapes.row import Row, Skip, binary, number
from webapp.data.shapes.turns import is_transcript, parse_chat, parse_transcript, reply_of
from webapp.data.shapes.two_replies import by_name

ANSWER: Final = frozenset({"value", "user_id", "status"})
ENDING: Final = ".responses"
LISTS: Final = ("generations", "responses", "replies", "completions")
ABOUT: Final = ("id", "status", "_server_id", "inserted_at", "updated_at", "external_id")


def is_record(row: Row) -> bool:
    return row.is_dict("fields") and (row.is_dict("responses") or row.is_list("responses"))


def read_record(row: Row) -> Iterator[Item | Part]:
    row.use(*ABOUT)
    fields = Row(row.get("fields"))
    sheet = argilla_sheet(fields)
    row.nested.update(f"fields.{name}" for name in fields.unused())
    answers = list(answers_of(row.get("responses")))
    if not answers:
        raise Skip("nobody has answered it")
    for question, value, person in answers:
        yield from argilla_answer(sheet, question, value, person)


def answers_of(responses: Any) -> Iterator[tuple[str, Any, str]]:
    """(question, value, person) of submitted answers: by question (Argilla 2), or a list of people's (Argilla 1)."""
    if isinstance(responses, dict):
        for question, answers in responses.items():
            for answer in answers if isinstance(answers, list) else []:
                if isinstance(answer, dict) and is_submitted(answer.get("status")):
                    yield str(question), answer.get("value"), str(answer.get("user_id") or "")
        return
    for response in responses:
        if (
            isinstance(response, dict)
            and isinstance(response.get("values"), dict)
            and is_submitted(response.get("status"))
        ):
            for question, answer in response["values"].items():
                value = answer.get("value") if isinstance(answer, dict) else answer
                yield str(question), value, str(response.get("user_id") or "")


def is_submitted(status: Any) -> bool:
    return status in (None, "submitted")


def argilla_sheet(row: Row) -> Sheet:
    question_name = row.first(ASKED_NAMES)
    if question_name is None:
        raise Skip("none of its fields is a prompt (instruction, prompt, question, …)")
    value = row.get(question_name)
    sheet = Sheet([])
    for name in row.record:
        answer = row.record[name]
        if (
            name != question_name
            and name not in SYSTEMS
            and REPLY_NAME.match(name)
            and isinstance(answer, str)
            and answer.strip()
        ):
            sheet.replies[name] = reply_of(row.get(name), row, name)
    messages = argilla_messages(value, row, question_name)
    if messages and messages[-1]["role"] == "assistant" and not sheet.replies:
        sheet.replies[question_name] = messages.pop()["content"]
    beside = contexts(row, question_name)
    if beside and messages:
        messages[-1] = {**messages[-1], "content": "\n\n".join([messages[-1]["content"], *beside])}
    sheet.messages = [*system_turn(row, messages), *messages]
    return sheet


def argilla_messages(value: Any, row: Row, name: str) -> Messages:
    if isinstance(value, str):
        return parse_transcript(value) if is_transcript(value) else [{"role": "user", "content": value}]
    return parse_chat(value, row, name).messages


def argilla_answer(sheet: Sheet, question: str, value: Any, person: str) -> Iterator[Item | Part]:
    try:
        if isinstance(value, list):
            yield ranked_names(sheet, list(order_of(value, sheet)), annotator=person)
        elif number(value) is not None and not isinstance(value, str):
            yield from rated(sheet, value, question, person)
        elif isinstance(value, bool) or is_choice(value, sheet):
            yield from chosen(sheet, value, question, annotator=person)
        else:
            yield from written(sheet, value, question, annotator=person)
    except Skip as skip:
        yield LeftOut(str(skip))


def is_choice(value: Any, sheet: Sheet) -> bool:
    """Is a text one of the choices that say which reply is better or whether it is good, rather than written?"""
    if not isinstance(value, str) or not sheet.replies:
        return False
    if len(sheet.replies) == 1:
        return binary(value) is not None
    return value in sheet.replies or by_name(value, ("", "")) is not None or by_place(value) is not None


def order_of(value: list[Any], sheet: Sheet) -> Iterator[tuple[float, str]]:
    """(rank, name) from [{value, rank}], from ranks in the order of the replies, or from names, the best first."""
    names = list(sheet.replies)
    for index, ranked in enumerate(value):
        if isinstance(ranked, dict):
            rank = number(ranked.get("rank"))
            if rank is None:
                raise Skip("a ranking without ranks")
            yield rank, str(ranked.get("value"))
        elif isinstance(ranked, str) and ranked in sheet.replies:
            yield float(index), ranked
        elif (rank := number(ranked)) is not None and len(value) == len(names):
            yield rank, names[index]
        else:
            raise Skip("a ranking does not name each of the replies once")


# ------------------------------------------------------------------------------------------------------ the flat table


def is_flat(row: Row) -> bool:
    return any(
        str(name).endswith(ENDING) and (value is None or isinstance(value, list)) for name, value in row.record.items()
    )


def read_flat(row: Row) -> Iterator[Item | Part]:
    row.use(*ABOUT)
    if not any(row.is_list(name) for name in row.record if str(name).endswith(ENDING)):
        raise Skip("nobody has answered it")
    listed = next((name for name in LISTS if row.is_list(name)), None)
    fields = {name: value for name, value in row.record.items() if "." not in str(name) and name != listed}
    field_row = Row(fields)
    sheet = argilla_sheet(field_row)
    row.use(*field_row.used)
    if listed:
        replies = row.get(listed)
        sheet.replies = {f"reply {index + 1}": reply_of(reply, row, listed) for index, reply in enumerate(replies)}
    is_answered = False
    for name in [name for name in row.record if str(name).endswith(ENDING)]:
        for value, person in flat_answers(row, str(name)):
            is_answered = True
            yield from argilla_answer(sheet, str(name).removesuffix(ENDING), value, person)
    if not is_answered:
        raise Skip("nobody has answered it")


def flat_answers(row: Row, name: str) -> Iterator[tuple[Any, str]]:
    values = row.get(name)
    people, states = row.get(f"{name}.users"), row.get(f"{name}.status")
    for index, value in enumerate(values if isinstance(values, list) else []):
        state = states[index] if isinstance(states, list) and index < len(states) else None
        person = people[index] if isinstance(people, list) and index < len(people) else ""
        if is_submitted(state) and value is not None:
            yield value, str(person or "")


# ------------------------------------------------------------------------------------------- the table of version 1


def answers_within(row: Row) -> Iterator[str]:
    """The columns that hold people's answers: lists of {value, user_id, status}."""
    for name, value in row.record.items():
        if isinstance(value, list) and value and all(isinstance(a, dict) and a.keys() >= ANSWER for a in value):
            yield str(name)


def is_old_flat(row: Row) -> bool:
    return next(answers_within(row), None) is not None


def read_old_flat(row: Row) -> Iterator[Item | Part]:
    row.use(*ABOUT)
    questions = list(answers_within(row))
    field_row = Row({name: value for name, value in row.record.items() if isinstance(value, str)})
    sheet = argilla_sheet(field_row)
    row.use(*field_row.used, *questions)
    is_answered = False
    for question in questions:
        for answer in row.get(question):
            if is_submitted(answer.get("status")) and answer.get("value") is not None:
                is_answered = True
                yield from argilla_answer(sheet, question, answer["value"], str(answer.get("user_id") or ""))
    if not is_answered:
        raise Skip("nobody has answered it")
