"""Krippendorff's alpha, on the examples of his paper of 2011 and on numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from annotations.alpha import coincidences, krippendorff_alpha, pairable_counts, squared_distances

FOUR_PEOPLE = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)


def labels(*people: str) -> tuple[list[int], list[str]]:
    """(units, values) of rows of labels, one row a person; a dot is a missing label."""
    given = [(unit, word) for row in people for unit, word in enumerate(row.split()) if word != "."]
    return [unit for unit, _ in given], [word for _, word in given]


@pytest.mark.parametrize(
    ("people", "level", "published"),
    [
        (("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"), "nominal", 0.095),  # section A
        (("a a b b d c c c e d d a", "b a b b b c c c e d d d"), "nominal", 0.692),  # section B
        (FOUR_PEOPLE, "nominal", 0.743),  # section C
        (FOUR_PEOPLE, "ordinal", 0.815),  # section D
    ],
)
def test_the_published_examples_come_out(people: Any, level: Any, published: Any) -> None:
    assert krippendorff_alpha(*labels(*people), level) == pytest.approx(published, abs=5e-4)


def test_a_small_case_worked_out_by_hand() -> None:
    """Units (1 1), (1 2), (3 3): coincidences 11: 2, 12: 1, 21: 1, 33: 2; totals 3, 1, 2."""
    units, values = labels("1 1 3", "1 2 3")
    counts = pairable_counts(np.array(units), np.array(values))
    assert coincidences(counts).tolist() == [[2, 1, 0], [1, 0, 0], [0, 0, 2]]
    # nominal: 1 - 5 · 2 / (2 · (3·1 + 3·2 + 1·2)) = 1 - 10/22
    assert krippendorff_alpha(units, values, "nominal") == pytest.approx(12 / 22)
    # ordinal distances: 1-2 (3/2 + 1/2)² = 4, 1-3 (3/2 + 1 + 1)² = 12.25, 2-3 (1/2 + 1)² = 2.25
    assert squared_distances(np.array([3.0, 1.0, 2.0]), "ordinal")[0].tolist() == [0, 4, 12.25]
    # 1 - 5 · (2 · 4) / (2 · (3·1·4 + 3·2·12.25 + 1·2·2.25)) = 1 - 40/180
    assert krippendorff_alpha(units, values, "ordinal") == pytest.approx(140 / 180)


def test_a_label_that_stands_alone_changes_nothing() -> None:
    units, values = labels("1 1 3 9", "1 2 3 .")
    assert krippendorff_alpha(units, values, "ordinal") == pytest.approx(140 / 180)


@pytest.mark.parametrize("people", [("1 1 1", "1 1 1"), ("1 . 2", ". 1 ."), ()])
def test_alpha_is_not_defined_without_two_labels_or_without_two_values(people: Any) -> None:
    assert krippendorff_alpha(*labels(*people), "nominal") is None


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_a_million_labels_agree_with_the_plain_formula(level: Any) -> None:
    """Random labels of 300,000 units agree as chance has it; the fast form gives what counting pair by pair does."""
    draw = np.random.default_rng(0)
    units, values = draw.integers(0, 300_000, 1_000_000), draw.integers(-1, 2, 1_000_000)
    assert krippendorff_alpha(units, values, level) == pytest.approx(0, abs=0.01)
    few = units < 200
    assert krippendorff_alpha(units[few], values[few], level) == pytest.approx(
        plain_alpha(units[few].tolist(), values[few].tolist(), level)
    )


def plain_alpha(units: list[int], values: list[int], level: str) -> float:
    """1 - observed / expected disagreement, pair by pair."""
    by_unit = [[v for u, v in zip(units, values, strict=True) if u == unit] for unit in sorted(set(units))]
    by_unit = [row for row in by_unit if len(row) > 1]
    every = [value for row in by_unit for value in row]

    def distance(a: int, b: int) -> float:
        if level == "nominal":
            return float(a != b)
        between = sum(min(a, b) <= value <= max(a, b) for value in every)
        return float((between - (every.count(a) + every.count(b)) / 2) ** 2) if a != b else 0.0

    table = {(a, b): distance(a, b) for a in set(every) for b in set(every)}
    observed = sum(table[a, b] / (len(row) - 1) for row in by_unit for a in row for b in row) / len(every)
    expected = sum(table[a, b] for a in every for b in every) / (len(every) * (len(every) - 1))
    return 1 - observed / expected
