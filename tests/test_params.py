"""Parameters are read as what they are, and whatever else comes is refused by name."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.http import QueryDict

from webapp.errors import BadInput
from webapp.params import MAX_BIGINT, read_choice, read_int, read_ints, read_text, read_uuid

NOT_NUMBERS = ["²", "٣", "1.5", "-1", "+1", "1e3", "0x1", "1_000", "a", "\x00", "1\x00", str(2**63), "9" * 5000]


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_what_is_not_a_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(BadInput, match=r"^before: give a whole number"):
        read_int({"before": value}, "before")
    query = QueryDict(mutable=True)
    query.setlist("run", ["1", value])
    with pytest.raises(BadInput, match=r"^run: give whole numbers"):
        read_ints(query, "run")


def test_a_number_is_read_and_an_absent_one_is_the_default() -> None:
    assert read_int({"before": "17"}, "before") == 17
    assert read_int({"before": str(MAX_BIGINT)}, "before") == MAX_BIGINT
    assert read_int({"at": "-3"}, "at", low=-5) == -3
    assert read_int({}, "before") is None
    assert read_int({"before": ""}, "before", 4) == 4


def test_repeated_numbers_keep_their_order_and_are_bounded() -> None:
    assert read_ints(QueryDict("run=3&run=1&run=2"), "run") == [3, 1, 2]
    with pytest.raises(BadInput, match="at most 2"):
        read_ints(QueryDict("run=3&run=1&run=2"), "run", at_most=2)


def test_a_choice_is_one_of_those_offered() -> None:
    assert read_choice({"state": "open"}, "state", ["open", "closed"]) == "open"
    assert read_choice({}, "state", ["open", "closed"]) == ""
    with pytest.raises(BadInput, match="state: choose one of open, closed"):
        read_choice({"state": "opened\x00"}, "state", ["open", "closed"])


@pytest.mark.parametrize("value", ["a\x00b", "half \ud83d", "x" * 1001])
def test_text_that_the_database_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(BadInput, match=r"^q: "):
        read_text({"q": value}, "q")


def test_text_is_given_as_it_is() -> None:
    assert read_text({"q": " naïve 😀 "}, "q") == " naïve 😀 "


def test_an_id_that_is_none_is_refused() -> None:
    known = uuid.uuid4()
    assert read_uuid({"deleted": str(known)}, "deleted") == known
    with pytest.raises(BadInput, match=r"^deleted: "):
        read_uuid({"deleted": "x"}, "deleted")
