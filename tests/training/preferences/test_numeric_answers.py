from __future__ import annotations

from fractions import Fraction

import pytest

from training.preferences.numeric_answers import answer_of, same_number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72", 72),
        ("#### 1,234,567", 1234567),
        ("#### $1,000.50", Fraction("1000.5")),
        ("#### -5", -5),
        (r"so \boxed{42}. Check: 41 + 1", 42),
        (r"\boxed{\frac{3}{4}}", Fraction(3, 4)),
        (r"\boxed{-\dfrac{1}{2}}", Fraction(-1, 2)),
        (r"first \boxed{1}, then \boxed{2}", 2),
        (r"#### 7 but then \boxed{8}", 8),
        (r"\boxed{x = {12}}", 12),
        ("The answer is 3/4", Fraction(3, 4)),
        ("It is 50%.", Fraction(1, 2)),
        ("2 + 3 = 5.", 5),
        ("The answer is 10-3", 3),  # a minus between numbers is no sign
        ("−4", -4),
        (".5", Fraction(1, 2)),
        ("1e3", 1000),
        ("1,2", 2),  # no thousands
        ("It costs €12", 12),
        ("3/0", None),
        ("none at all", None),
        ("", None),
        ("9" * 200, None),
    ],
)
def test_the_answer_of_a_text_is_found(text: str, answer: Fraction | int | None) -> None:
    assert answer_of(text) == answer


def test_where_the_answer_stands_can_be_told() -> None:
    assert answer_of(r"\boxed{1} and 2", "marked") == 1
    assert answer_of(r"\boxed{1} and 2", "last") == 2
    assert answer_of("only 2", "marked") is None
    assert answer_of(r"\boxed{no number} and 2") is None  # a mark without a number is an answer that is none


def test_a_tolerance_is_relative_to_the_reference() -> None:
    assert same_number(Fraction(101), Fraction(100), 0.01)
    assert not same_number(Fraction(102), Fraction(100), 0.01)
    assert same_number(Fraction(1, 2), Fraction("0.5"))
    assert not same_number(None, Fraction(1))
