from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webapp.data.shapes import DemonstrationItem, DocumentItem, LeftOut, PromptItem, RankingItem, UnknownShape, items

ASK = [{"role": "user", "content": "Why is the sky blue?"}]


def only(record: Any) -> Any:
    (item,) = items(record)
    return item


def test_an_hh_pair_is_a_ranking_of_its_last_turns() -> None:
    shared = "\n\nHuman: Why is the sky blue?\n\nAssistant:"
    assert only({"chosen": shared + " Scattering.", "rejected": shared + " Paint."}) == RankingItem(
        ASK, ["Scattering.", "Paint."], [[0], [1]]
    )


def test_a_pair_with_a_prompt_of_its_own_is_a_ranking() -> None:
    record = {"prompt": "Why is the sky blue?", "chosen": "Scattering.", "rejected": "Paint."}
    assert only(record) == RankingItem(ASK, ["Scattering.", "Paint."], [[0], [1]])


def test_a_pair_that_parts_before_its_last_turn_is_left_out() -> None:
    chosen = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"
    assert only({"chosen": chosen, "rejected": chosen.replace(": b", ": x")}) == LeftOut(
        "chosen and rejected answer different prompts"
    )


def test_equal_ranks_tie_and_the_lowest_is_the_best() -> None:
    record = {"prompt": "Why is the sky blue?", "replies": ["a", "b", "c"], "ranks": [2, 1, 2]}
    assert only(record) == RankingItem(ASK, ["a", "b", "c"], [[1], [0, 2]])


def test_a_tree_gives_rankings_of_siblings_demonstrations_of_the_best_and_prompts_without_replies() -> None:
    leaf = {"role": "prompter", "text": "And the sea?", "replies": []}
    replies = [
        {"role": "assistant", "text": "Paint.", "rank": 1, "replies": []},
        {"role": "assistant", "text": "Scattering.", "rank": 0, "replies": [leaf]},
        {"role": "assistant", "text": "Spam", "rank": 2, "deleted": True},
    ]
    found = list(items({"prompt": {"role": "prompter", "text": "Why is the sky blue?", "replies": replies}}))
    assert RankingItem(ASK, ["Paint.", "Scattering."], [[1], [0]]) in found
    assert DemonstrationItem(ASK, "Scattering.") in found
    assert (
        PromptItem([*ASK, {"role": "assistant", "content": "Scattering."}, {"role": "user", "content": "And the sea?"}])
        in found
    )
    assert LeftOut("a message that was deleted or failed review") in found
    assert len(found) == 4


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "Why is the sky blue?", "response": "Scattering."},
        {"instruction": "Why is the sky blue?", "context": "", "response": "Scattering."},
        {"question": "Why is the sky blue?", "answer": "Scattering.", "extra": 3},
        {"messages": [*ASK, {"role": "assistant", "content": "Scattering."}]},
        {
            "conversations": [
                {"from": "human", "value": "Why is the sky blue?"},
                {"from": "gpt", "value": "Scattering."},
            ]
        },
    ],
)
def test_demonstrations_come_in_many_shapes(record: Any) -> None:
    assert only(record) == DemonstrationItem(ASK, "Scattering.")


def test_a_context_follows_its_instruction() -> None:
    item = only({"instruction": "Sum it up.", "context": "It rained.", "response": "Rain."})
    assert item == DemonstrationItem([{"role": "user", "content": "Sum it up.\n\nIt rained."}], "Rain.")


@pytest.mark.parametrize("record", ["Why is the sky blue?", {"prompt": "Why is the sky blue?"}, {"messages": ASK}])
def test_prompts_come_in_many_shapes(record: Any) -> None:
    assert only(record) == PromptItem(ASK)


def test_text_is_a_document() -> None:
    assert only({"text": "<p>x</p>", "format": "html"}) == DocumentItem("<p>x</p>", "html")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": "Go", "response": "  "}, "the reply is empty"),
        ({"text": "   "}, "empty text"),
        ("", "the prompt is empty"),
        ({"prompt": "x", "chosen": "same", "rejected": "same"}, "two of the replies are the same text"),
        ({"messages": [*ASK, *ASK]}, "two turns of the same side in a row"),
        (
            {"messages": [{"role": "king", "content": "x"}]},
            "turn 1: king is no role that is read (system, user and assistant are)",
        ),
    ],
)
def test_what_is_left_out_says_why(record: Any, reason: Any) -> None:
    assert only(record) == LeftOut(reason)


def test_a_record_of_no_known_shape_names_its_keys() -> None:
    with pytest.raises(UnknownShape, match="found: bar, foo"):
        list(items({"foo": 1, "bar": 2}))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["prompt", "chosen", "rejected", "replies", "ranks", "messages", "text", "instruction", "response", "role"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_no_record_breaks_the_reader(record: Any) -> None:
    try:
        found = list(items(record))
    except UnknownShape:
        return
    assert all(
        isinstance(item, DocumentItem | PromptItem | DemonstrationItem | RankingItem | LeftOut) for item in found
    )
