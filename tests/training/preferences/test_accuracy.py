from __future__ import annotations

import math
from typing import Any

import pytest

from tests.narrowing import existing
from training.contract import RankingRow, Turn
from training.preferences.accuracy import agreement, reliability


def ranking(groups: Any, prompt: str = "hi", **named: Any) -> RankingRow:
    replies = [f"reply {i}" for i in range(sum(len(group) for group in groups))]
    return RankingRow(id="r", messages=[Turn(role="user", content=prompt)], replies=replies, groups=groups, **named)


def test_accuracy_counts_decided_comparisons_and_halves_equal_scores() -> None:
    found = existing(agreement([ranking([[0], [1], [2]])], [[2.0, 1.0, 1.0]], [[1, 1, 1]]))
    assert found.metrics["accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.counts["comparisons"] == 3


def test_ties_are_apart() -> None:
    found = existing(agreement([ranking([[0], [1, 2]])], [[3.0, 1.0, 0.5]], [[1, 1, 1]]))
    assert found.metrics["accuracy"] == 1
    assert (found.counts["comparisons"], found.counts["ties"]) == (2, 1)
    assert found.metrics["gap_tied"] == pytest.approx(0.5)
    assert found.metrics["gap_decided"] == pytest.approx((2 + 2.5) / 2)


def test_the_loss_is_that_worked_out_by_hand() -> None:
    found = existing(agreement([ranking([[0], [1]])], [[2.0, 0.0]], [[1, 1]]))
    assert found.metrics["loss"] == pytest.approx(math.log(1 + math.exp(-2)))


def test_a_calibrated_loss_is_never_worse() -> None:
    rows = [ranking([[0], [1]], f"p{i}") for i in range(10)]
    found = existing(agreement(rows, [[9.0, 0.0]] * 7 + [[0.0, 9.0]] * 3, [[1, 2]] * 10))
    assert found.metrics["calibrated_loss"] < found.metrics["loss"]
    assert found.temperature == pytest.approx(9 / math.log(7 / 3), rel=1e-3)


def test_rankings_of_one_prompt_are_one_cluster() -> None:
    scores = [[1.0, 0.0], [0.0, 1.0]] * 10
    many = existing(agreement([ranking([[0], [1]], f"p{i}") for i in range(20)], scores, [[1, 1]] * 20))
    one = existing(agreement([ranking([[0], [1]], "the same") for _ in range(20)], scores, [[1, 1]] * 20))
    assert existing(many.accuracy.low) < many.accuracy.value < existing(many.accuracy.high)
    assert one.accuracy.low is None


def test_length_has_its_own_accuracy_and_correlation() -> None:
    rows = [ranking([[0], [1]], f"p{i}") for i in range(4)]
    found = existing(agreement(rows, [[1.0, 0.0]] * 4, [[9, 2], [8, 3], [7, 1], [2, 6]]))
    assert found.metrics["longer_is_better"] == 0.75
    assert found.metrics["length_only_accuracy"] == 0.75
    assert found.metrics["length_correlation"] > 0
    flipped = existing(agreement(rows, [[1.0, 0.0]] * 4, [[2, 9], [3, 8], [1, 7], [6, 2]]))
    assert flipped.metrics["longer_is_better"] == 0.25
    assert flipped.metrics["length_only_accuracy"] == 0.75


def test_sources_and_annotators_are_counted() -> None:
    rows = [
        ranking([[0], [1]], annotator="ada", source="chat"),
        ranking([[1], [0]], annotator="ben", source="chat"),
    ]
    counts = existing(agreement(rows, [[1.0, 0.0]] * 2, [[1, 1]] * 2)).counts
    assert counts["annotator/ada/right"] == 1
    assert counts["annotator/ben/right"] == 0
    assert (counts["source/chat/right"], counts["source/chat/comparisons"]) == (1, 2)


def test_rankings_that_decide_nothing_have_no_accuracy() -> None:
    assert agreement([ranking([[0, 1]])], [[1.0, 0.0]], [[1, 1]]) is None


def test_reliability_is_belief_against_truth() -> None:
    believed = 1 / (1 + math.exp(-0.85))  # 0.70
    found = reliability([0.85, 0.85, 0.85, -0.85])
    assert found == pytest.approx({"ece": abs(believed - 0.75), "reliability/0.7": 0.75})


def test_equal_scores_are_believed_and_right_by_half() -> None:
    assert reliability([0.0, 0.0]) == {"ece": 0.0, "reliability/0.5": 0.5}


def test_the_error_weighs_the_bins_by_their_comparisons() -> None:
    sure = 1 / (1 + math.exp(-10))
    assert reliability([10.0, 10.0, -10.0, 0.0])["ece"] == pytest.approx(0.75 * (sure - 2 / 3))


def test_strengths_are_counted_apart() -> None:
    rows = [ranking([[0], [1]], strength=strength) for strength in (1, 2, 2.5)]
    counts = existing(agreement(rows, [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [[1, 1]] * 3)).counts
    assert {name: count for name, count in counts.items() if name.startswith("strength/")} == {
        "strength/1/comparisons": 1, "strength/1/right": 1, "strength/2/comparisons": 1, "strength/2/right": 0,
        "strength/2.5/comparisons": 1, "strength/2.5/right": 1,
    }  # fmt: skip


def test_the_members_disagreement_is_apart_where_they_are_wrong() -> None:
    rows = [ranking([[0], [1]], "a"), ranking([[0], [1]], "b")]
    members = [[[1.0, 0.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 4.0]]]
    mean = [[2.0, 0.0], [0.0, 2.0]]
    found = existing(agreement(rows, mean, [[1, 1]] * 2, members)).metrics
    assert found["spread_right"] == pytest.approx(2**0.5)
    assert found["spread_wrong"] == pytest.approx(4 / 2**0.5)
    assert "spread_right" not in existing(agreement(rows, mean, [[1, 1]] * 2, [mean])).metrics
