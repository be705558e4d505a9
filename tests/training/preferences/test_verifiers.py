from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from training.contract import InputError
from training.contract.rewards import REWARD_TERMS, RewardTerm, RewardTermBase
from training.preferences.reward_functions import RewardBatch
from training.preferences.verifiers import VERIFIERS


def term(**settings: Any) -> RewardTermBase:
    return TypeAdapter(RewardTerm).validate_python(settings)


def scores(settings: dict[str, Any], *replies: str, reference: Any = None, data: Any = None) -> list[float | None]:
    count = len(replies)
    batch = RewardBatch([[]] * count, replies, [reference] * count, [data or {}] * count)
    chosen = term(**settings)
    return list(VERIFIERS[type(chosen)](chosen, batch))


def test_exact_match_ignores_what_does_not_matter() -> None:
    assert scores({"kind": "exact"}, "paris!", " Paris ", "Paris, France", reference="Paris.") == [1, 1, 0]
    assert scores({"kind": "exact", "normalize": False}, "paris", "Paris", reference="Paris") == [0, 1]
    assert scores({"kind": "exact"}, "a", "b", "c", reference=["a", "b"]) == [1, 1, 0]
    assert scores({"kind": "exact"}, "C", "C++", reference="C++") == [1, 1]
    assert scores({"kind": "exact"}, "7", reference=7) == [1]
    assert scores({"kind": "exact"}, "x", reference=None) == [None]


def test_exact_match_may_look_at_a_part_of_the_reply() -> None:
    last = {"kind": "exact", "compare": "last_line"}
    assert scores(last, "I think so:\nParis\n", "Paris\nor Rome", reference="Paris") == [1, 0]
    contains = {"kind": "exact", "compare": "contains"}
    assert scores(contains, "It is Paris, of course", "Parisian", reference="paris") == [1, 0]


def test_numbers_are_compared_and_not_their_texts() -> None:
    numeric = {"kind": "numeric"}
    assert scores(numeric, "It is 1,000.", "1000.0", "10000", reference="9 + 991\n#### 1000") == [1, 1, 0]
    assert scores(numeric, "about 3.14", reference=3.14159) == [0]
    assert scores(numeric | {"tolerance": 0.01}, "about 3.14", reference=3.14159) == [1]
    assert scores(numeric, "5", reference="no number") == [None]
    assert scores(numeric, "1", reference=True) == [None]


def test_regular_expressions_match_a_part_or_the_whole() -> None:
    assert scores({"kind": "regex", "pattern": "^yes"}, "yes, it is", "no, yes") == [1, 0]
    assert scores({"kind": "regex", "pattern": "YES", "whole": True, "ignore_case": True}, "yes\n", "yes!") == [1, 0]
    assert scores({"kind": "regex"}, "abc", reference="a.c") == [1]
    assert scores({"kind": "regex"}, "abc", reference=None) == [None]
    with pytest.raises(ValueError, match=r"the reference '\(' is no regular expression"):
        scores({"kind": "regex"}, "abc", reference="(")


def test_an_expression_that_takes_forever_does_not_match() -> None:
    started_at = time.monotonic()
    assert scores({"kind": "regex", "pattern": "(a+)+$"}, "a" * 60 + "b", "a") == [0, 1]
    assert time.monotonic() - started_at < 5


def test_json_is_held_against_its_schema() -> None:
    schema = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    given = {"kind": "json_schema", "json_schema": schema}
    fenced = 'Here it is:\n```json\n{"name": "Ada"}\n```'
    assert scores(given, '{"name": "Ada"}', fenced, '{"name": 1}', "{}", "no JSON") == [1, 1, 0, 0, 0]
    assert scores({"kind": "json_schema"}, "{}", "[", "3") == [1, 0, 1]
    assert scores({"kind": "json_schema"}, "3", '"x"', data={"schema": {"type": "integer"}}) == [1, 0]
    with pytest.raises(InputError, match=r"json_schema: 'no type' is not"):
        scores({"kind": "json_schema"}, "3", data={"schema": {"type": "no type"}})


def test_a_length_outside_its_limits_loses_in_proportion() -> None:
    words = {"kind": "length", "minimum": 2, "maximum": 4}
    assert scores(words, "one", "one two", "a b c d", "a b c d e", "x " * 9) == [0.5, 1, 1, 0.75, 0]
    assert scores({"kind": "length", "maximum": 4, "unit": "characters"}, "four", "fifteen characters") == [1, 0]


def test_the_language_of_a_reply_is_recognized() -> None:
    german = {"kind": "language", "language": "de"}
    assert scores(german, "Das ist ein ganz gewöhnlicher deutscher Satz.", "This is a plain English sentence.") == [
        1,
        0,
    ]
    with pytest.raises(InputError, match="qq is not recognized"):
        scores({"kind": "language", "language": "qq"}, "x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "regex", "pattern": "("}, "no regular expression"),
        ({"kind": "json_schema", "json_schema": "{"}, "no JSON"),
        ({"kind": "json_schema", "json_schema": "[]"}, "a schema is a JSON object"),
        ({"kind": "length", "minimum": 9, "maximum": 3}, "minimum must not be above maximum"),
        ({"kind": "url", "url": "ftp://example.org"}, "https://"),
        ({"kind": "url", "url": "https://me:secret@example.org"}, "leave credentials out"),
        ({"kind": "numeric", "tolerance": -1}, "greater than or equal"),
        ({"kind": "magic"}, "does not match any of the expected tags"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        term(**settings)


def test_each_kind_of_term_can_be_computed() -> None:
    assert {kind for kind, model in REWARD_TERMS.items() if model not in VERIFIERS} == {"code", "function", "url"}
