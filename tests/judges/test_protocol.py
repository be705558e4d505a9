"""What a judge is asked, and how its answer is read."""

from __future__ import annotations

import pytest

from webapp.judges.protocol import Question, Setup, judge_messages, read_verdict

SETUP = Setup("https://example.org/v1", "big", "pairwise", "Be right.")
QUESTION = Question([{"role": "user", "content": "Why?"}], ("So.", "Because."))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"reason": "x", "winner": "A"}', "first"),
        ('Well.\n```json\n{"reason": "x", "winner": "b"}\n```', "second"),
        ('<think>{"winner": "A"}? No.</think>{"winner": "tie"}', "tie"),
        ('{"winner": "A"} wait {"winner": "B"}', "second"),
        ("I say: **winner**: B", "second"),
        ('{"winner": "Reply A"}', "first"),
        ('<think>{"winner": "A"} and then it was cut off', ""),
        ('{"winner": "C"}', ""),
        ("Both are fine.", ""),
        ("{" * 20_000, ""),
        ("", ""),
    ],
)
def test_a_verdict_is_read_from_what_models_really_write(text: str, verdict: str) -> None:
    assert read_verdict("pairwise", text).verdict == verdict


@pytest.mark.parametrize(
    ("text", "score"),
    [('{"score": 7}', 7.0), ('{"score": "8/10"}', 8.0), ("Score: 3.5", 3.5), ('{"score": 11}', None), ("nan", None)],
)
def test_a_score_is_read_and_must_be_on_the_scale(text: str, score: float | None) -> None:
    assert read_verdict("pointwise", text).score == score


def test_what_is_kept_of_an_answer_can_be_stored() -> None:
    assert read_verdict("pairwise", '{"reason": "a\\u0000b \\ud800", "winner": "A"}').reason == "ab ?"


def test_the_question_has_rubric_conversation_and_both_replies_in_order() -> None:
    (turn,) = judge_messages(SETUP, QUESTION)
    text = turn["content"]
    places = [text.index(part) for part in ("Be right.", "[User]\nWhy?", "[Reply A]\nSo.", "[Reply B]\nBecause.")]
    assert places == sorted(places)


def test_the_key_changes_with_everything_that_could_change_the_answer() -> None:
    others = [
        QUESTION.swapped().key(SETUP),
        Question([{"role": "user", "content": "Why not?"}], QUESTION.replies).key(SETUP),
        QUESTION.key(Setup(SETUP.address, SETUP.model, SETUP.mode, "Be brief.")),
        QUESTION.key(Setup(SETUP.address, "small", SETUP.mode, SETUP.rubric)),
        QUESTION.key(Setup("https://other.org/v1", SETUP.model, SETUP.mode, SETUP.rubric)),
    ]
    assert len({QUESTION.key(SETUP), *others}) == 6
    assert QUESTION.key(SETUP) == Question(QUESTION.messages, QUESTION.replies, 5).key(SETUP)
