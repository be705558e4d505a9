from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.samples import SAMPLES
from webapp.data.shapes import (
    DemonstrationItem,
    DocumentItem,
    JudgmentItem,
    LeftOut,
    PromptItem,
    RankingItem,
    UnknownShape,
    items,
)

ANY_ITEM = DocumentItem | PromptItem | DemonstrationItem | RankingItem | JudgmentItem | LeftOut


@pytest.mark.parametrize("name", SAMPLES)
def test_a_row_of_each_shape_is_read_as_what_it_is(name: Any) -> None:
    record, right = SAMPLES[name]
    assert list(items(copy.deepcopy(record))) == right


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["\ud83d", "\0", "user", "assistant", "1", "{}", "[1]", 10**400, -1, [], {}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(spot for key, part in inner for spot in spots(part, (*path, key)))]


@st.composite
def odd_records(draw: Any) -> dict[str, Any]:
    """A row of a known shape with odd values in some of its places, and columns of another shape beside its own."""
    record = copy.deepcopy(draw(st.sampled_from(list(SAMPLES.values())))[0])
    if draw(st.booleans()):
        record |= copy.deepcopy(draw(st.sampled_from(list(SAMPLES.values())))[0])
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(spots(record)[1:] or [("x",)]))
        target = record
        for key in way:
            target = target[key]
        target[last] = draw(ODD)
    return record


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(odd_records())
def test_odd_values_anywhere_in_a_row_break_nothing(record: Any) -> None:
    try:
        found = list(items(record))
    except UnknownShape:
        return
    assert all(isinstance(item, ANY_ITEM) for item in found)
    for item in found:
        str(item).encode()  # half of a surrogate pair gets no further than here
