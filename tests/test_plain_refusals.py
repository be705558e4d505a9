"""Whatever is wrong in a request, the answer names the field, says what came and what is expected, in plain English."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from rest_framework import serializers as rest

from tests.hostile import client_for
from training.contract import (
    SPECS,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    RequestRefused,
    TextRow,
    describe,
    parse_request,
    problems,
    read_request,
)
from training.contract.completions import checked_body
from training.contract.parameters import UNSUPPORTED
from training.contract.wording import number_words, words_of
from training.serve.protocol import LoadBody, TokenizeBody, UnloadBody
from webapp.api import serializers
from webapp.api.errors import error_sentence
from webapp.api.wording import plain_errors
from webapp.errors import BadInput
from webapp.strict_json import parse_json as parse_strictly

MESSAGE = {"role": "user", "content": "hi"}
WRONG: list[Any] = [
    None, True, 5, 0, -1, 10**30, 1.5, -1.5, "x", "", "y" * 5000, [], [1], ["a"], [None], [[]], [{}], {}, {"a": 1},
    {"include_usage": 3}, [{"role": "user"}], [{"content": "x"}], [{"role": 5, "content": "x"}], [1, "a"], [[1, "a"]],
    [{"role": "user", "content": 5}], [{"role": "user", "content": [5]}], ["a"] * 20, {"x": 1}, {"5": 9}, {"5": ["x"]},
    [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "tool", "content": "4"}],
    [{"role": "assistant", "content": None}], {"limit": "a"}, {"ids": ["a"]}, {"nonesuch": 1},
]  # fmt: skip
FOREIGN = re.compile(
    r"Input should|valid (integer|number|string|list|dictionary|boolean)|Field required|This field|may not be|Ensure"
    r"|items? after validation|Expected a|String should|List should|instance of|Value error|codec|char \d|sys\."
    r"|\b(NoneType|None|dict|str|int|float|bool|UUID\(|ValueError|TypeError)\b|greater than or equal|less than or equal"
)


def check(message: str, field: str, value: Any) -> None:
    where = f"{field}: {json.dumps(value)[:60]} -> {message}"
    assert not FOREIGN.search(message), where
    assert re.match(rf"{re.escape(field)}[.:]", message), where
    assert message.endswith("."), where
    assert len(message) < 400, where


BODIES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (ChatRequest, {"model": "kite", "messages": [MESSAGE]}),
    (CompletionRequest, {"model": "kite", "prompt": "hi"}),
    (TokenizeBody, {"model": "kite"}),
    (LoadBody, {"lora_name": "a", "lora_path": "/b"}),
    (UnloadBody, {"lora_name": "a"}),
]


@pytest.mark.parametrize(("kind", "sound"), BODIES, ids=lambda part: getattr(part, "__name__", ""))
def test_every_parameter_of_v1_and_the_model_server(kind: Any, sound: dict[str, Any]) -> None:
    generates = issubclass(kind, GenerationRequest)
    names = [*kind.model_fields, *(UNSUPPORTED if generates else ())]
    read: Any = read_request if generates else checked_body
    refused = 0
    for name in names:
        without = {key: value for key, value in sound.items() if key != name}
        for body in ({**without, name: value} for value in WRONG):
            try:
                read(body, kind)
            except RequestRefused as refusal:
                check(refusal.message, name, body[name])
                refused += 1
        if name in sound:
            with pytest.raises(RequestRefused, match=rf"^{name}: this is missing; give "):
                read(without, kind)
    assert refused > 10 * len(sound)
    broken: list[Any] = [None, [], 5, "x", True]
    for body in broken:
        with pytest.raises(RequestRefused, match=r"^The body must be a JSON object\.$"):
            read(body, kind)


SENTENCES = {
    "max_tokens": ("5", 'max_tokens: give a whole number of 1 or more, not the text "5".'),
    "temperature": (9, "temperature: give a number from 0 to 5, not 9."),
    "top_p": (None, ""),
    "n": (True, "n: give a whole number from 1 to 64, not true."),
    "seed": (10**20, "seed: 100000000000000000000 is too large a number; give a whole number of at most 64 bits."),
    "stop": (["a", 1], "stop: give a text or a list of texts, not a list with 1 in it."),
    "stream": ("yes", 'stream: give true or false, not the text "yes".'),
    "stream_options": ([], "stream_options: give an object, not an empty list."),
    "messages": ({}, "messages: give a list of 1 or more objects with role and content, not an empty object."),
    "user": (["a"], "user: give text of at most 300 characters, not a list."),
}


def test_the_sentences_themselves() -> None:
    for name, (value, expected) in SENTENCES.items():
        body = {"model": "kite", "messages": [MESSAGE], name: value}
        if not expected:
            read_request(body, ChatRequest)
            continue
        with pytest.raises(RequestRefused) as refused:
            read_request(body, ChatRequest)
        assert refused.value.message == expected
    deep = {"model": "kite", "messages": [MESSAGE, {"role": "robot", "content": 5}]}
    with pytest.raises(RequestRefused) as refused:
        read_request(deep, ChatRequest)
    assert refused.value.message == (
        'messages.1.role: give "system", "developer", "user" or "assistant", not the text "robot".'
    )
    assert (refused.value.param, refused.value.code) == ("messages.1.role", "invalid_value")


def test_limits_in_words() -> None:
    assert number_words("a number", gt=0, le=1) == "a number above 0 and at most 1"
    assert number_words("a number", ge=0, lt=1) == "a number of 0 or more and below 1"
    assert number_words("a whole number", ge=1) == "a whole number of 1 or more"
    assert number_words("a whole number") == "a whole number"
    assert words_of(list[dict[str, Any]]) == "a list of objects"
    assert words_of(int | str | None) == "a whole number or text"


# --------------------------------------------------------------------------------------------------------- bad JSON

BROKEN = [
    b"", b"{no", b'{"a": 1', b'{"a" 1}', b'{"a": 1,}', b"[1]x", b'"abc', b'{"a": "\n"}', b'{"a": "\\x"}',
    b'{"a": "\\u12"}', b'{"a": "\xff"}', b"\xef\xbb\xbf{", b"nul", b"'a'",
]  # fmt: skip


@pytest.mark.parametrize("body", BROKEN, ids=repr)
def test_broken_json_is_told_in_the_same_plain_words_at_both_apis(body: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse_request(body)
    with pytest.raises(BadInput) as bad:
        parse_strictly(body)
    for message in (refused.value.message, bad.value.message):
        assert message.startswith("The body is not valid JSON: ")
        assert re.search(r"\((line \d+, column \d+|byte \d+)\)\.$", message), message
        assert not re.search(r"Expecting|Extra data|delimiter|codec|char \d|Invalid|utf-8-sig", message), message


def test_a_number_that_json_does_not_have_is_told_with_its_place() -> None:
    for raw, message in {
        b'{"a": {"b": [1, NaN]}}': "a.b.1: NaN is not a number in JSON; give a finite one.",
        b'{"share": 1e999}': "share: 1e999 is too large; give a smaller number.",
        b'{"ids": [9223372036854775808]}': (
            "ids.0: 9223372036854775808 is too large; give a whole number of at most 64 bits."
        ),
        b'{"a": ' + b"9" * 5000 + b"}": f"a: {'9' * 20}… is too large; give a whole number of at most 64 bits.",
        b'{"a": NaN, "a": 1}': "body: NaN is not a number in JSON; give a finite one.",
    }.items():
        with pytest.raises(BadInput) as bad:
            parse_strictly(raw)
        assert bad.value.message == message
    with pytest.raises(RequestRefused, match="an integer of more than 4,300 digits"):
        parse_request(b'{"a": ' + b"9" * 5000 + b"}")


# ------------------------------------------------------------------------------------------------------------ /api/v1

TAKEN = [
    kind for kind in vars(serializers).values()
    if isinstance(kind, type) and issubclass(kind, rest.Serializer) and not issubclass(kind, rest.ModelSerializer)
    and kind.__module__ == serializers.__name__ and kind is not serializers.LeaseSerializer
]  # fmt: skip


@pytest.mark.parametrize("kind", TAKEN, ids=lambda kind: kind.__name__)
def test_every_field_of_every_body_of_the_rest_api(kind: Any) -> None:
    for name, field in kind().fields.items():
        assert not field.read_only
        for value in WRONG:
            given = kind(data={name: value})
            if given.is_valid() or name not in given.errors:
                continue
            told = plain_errors(given.errors, given, {name: value})
            check(error_sentence({name: told[name]}), name, value)
        if field.required:
            given = kind(data={})
            assert not given.is_valid()
            assert plain_errors(given.errors, given, {})[name][0].startswith("this is missing; give ")


def test_an_answer_of_the_rest_api_names_field_value_and_limits(root: Any, project: Any) -> None:
    client = client_for(root)

    def refused(address: str, body: Any) -> dict[str, Any]:
        response = client.post(f"/api/v1/projects/kite/{address}/", json.dumps(body), content_type="application/json")
        assert response.status_code == 400
        told: dict[str, Any] = response.json()
        return told

    filters = {"limit": "many", "ids": [[1]]}
    told = refused("snapshots", {"kind": "prompts", "filters": filters})
    assert told["message"] == 'filters.limit: give a whole number of 0 or more, not the text "many".'
    assert told["fields"]["filters"]["ids"]["0"] == ["give a whole number of 1 or more, not a list."]
    told = refused("prompts", {"conversations": [[{"role": "robot", "content": "x"}]]})
    assert told["message"] == 'conversations.0.0.role: give "system", "user" or "assistant", not the text "robot".'
    assert refused("prompts", {"conversations": [[5]]})["message"] == (
        "conversations.0.0: give an object with role and content, not 5."
    )
    assert refused("prompts", [])["message"] == "The body must be a JSON object."
    told = refused("runs", {"stage": "sft", "config": {"learning_rate": "x", "lora": {"rank": -1}}})
    assert told["message"] == (
        'learning_rate: give a number above 0 and at most 1, not the text "x"; '
        "lora.rank: give a whole number from 0 to 512, not -1."
    )


# ------------------------------------------------------------------------------------------------- settings and rows


@pytest.mark.parametrize("stage", SPECS)
def test_every_setting_of_every_stage(stage: Any) -> None:
    kind = SPECS[stage].settings
    for name in kind.model_fields:
        for value in WRONG:
            with pytest.raises(ValidationError) as wrong:
                kind.model_validate({name: value, "nonesuch": 1})
            for problem in problems(wrong.value.errors(), kind):
                if problem.place not in ("nonesuch", ""):
                    check(f"{problem.sentence}.", name, value)


def test_a_row_that_is_no_json_or_lacks_a_field_is_told_so() -> None:
    for line, message in {
        b"{": "this is not valid JSON (column 1)",
        b'{"id": "1"}': "text: this is missing; give text",
        b'{"id": "1", "text": 5}': "text: give text, not 5",
    }.items():
        with pytest.raises(ValidationError) as wrong:
            TextRow.model_validate_json(line)
        assert describe(wrong.value.errors(), TextRow) == message
