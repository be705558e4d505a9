"""Simulated annotators do what their stated noise says."""

from __future__ import annotations

import random

import pytest

from webapp.demo.annotators import ANNOTATORS, Annotator, expected_agreement, ranking_pair_agreement, ranks_by_index

SURE = Annotator("Sure", noise=1e-9, tie=0.5)


def test_a_person_without_noise_orders_by_the_score() -> None:
    assert SURE.rank([3.0, 9.0, 1.0], random.Random(0)) == [[1], [0], [2]]


def test_replies_about_as_good_are_tied() -> None:
    assert SURE.rank([5.0, 9.0, 5.2], random.Random(0)) == [[1], [2, 0]]


def test_a_chain_of_small_steps_is_not_one_tie() -> None:
    assert SURE.rank([5.0, 4.7, 4.4], random.Random(0)) == [[0, 1], [2]]


def test_the_same_seed_gives_the_same_ranking() -> None:
    scores = [4.0, 5.0, 6.0, 7.0]
    assert ANNOTATORS[3].rank(scores, random.Random(7)) == ANNOTATORS[3].rank(scores, random.Random(7))


@pytest.mark.parametrize("person", ANNOTATORS, ids=lambda person: person.name)
@pytest.mark.parametrize("gap", [0.0, 0.75, 2.0, 5.0])
def test_wins_and_losses_come_as_often_as_the_noise_says(person: Annotator, gap: float) -> None:
    rng = random.Random(3)
    drawn = [ranks_by_index(person.rank([5 + gap, 5.0], rng)) for _ in range(6000)]
    first = sum(place[0] < place[1] for place in drawn) / len(drawn)
    second = sum(place[1] < place[0] for place in drawn) / len(drawn)
    assert (first, second) == pytest.approx(person.chances(gap), abs=0.03)


def test_two_people_agree_as_often_as_expected() -> None:
    rng = random.Random(5)
    gaps = [rng.choice((0.25, 0.75, 1.5, 3.0, 6.0)) for _ in range(6000)]
    one, other = ANNOTATORS[1], ANNOTATORS[3]
    pairs = [(one.rank([5 + gap, 5.0], rng), other.rank([5 + gap, 5.0], rng)) for gap in gaps]
    value, counted = ranking_pair_agreement(pairs)
    assert counted > 4000
    assert value == pytest.approx(expected_agreement(one, other, gaps), abs=0.02)


def test_reliable_people_agree_more() -> None:
    gaps = [0.5, 1.0, 2.0]
    assert expected_agreement(ANNOTATORS[0], ANNOTATORS[0], gaps) > expected_agreement(
        ANNOTATORS[3], ANNOTATORS[3], gaps
    )


def test_agreement_counts_pairs_on_which_both_have_a_preference() -> None:
    assert ranking_pair_agreement([([[0], [1], [2]], [[0], [1, 2]])]) == (1.0, 2)
    assert ranking_pair_agreement([([[0], [1]], [[1], [0]])]) == (0.0, 1)
