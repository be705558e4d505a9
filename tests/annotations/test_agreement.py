"""Agreement between annotators, on numbers worked out by hand."""

from __future__ import annotations

import pytest

from annotations.agreement import clustered_interval, comparisons, ordinal_alpha, pair_agreement, ranking_agreement
from annotations.models import Task
from tests import factories
from webapp.accounts.models import Project, User


def test_a_ranking_becomes_a_word_on_each_two_replies() -> None:
    assert comparisons([[3], [1, 2]]) == {(1, 2): 0, (1, 3): -1, (2, 3): -1}


@pytest.mark.parametrize(("one", "other", "value"), [(1, 1, 1), (0, 0, 1), (1, -1, 0), (0, 1, 0.5), (-1, 0, 0.5)])
def test_a_tie_against_a_choice_is_half_an_agreement(one: int, other: int, value: float) -> None:
    assert pair_agreement(one, other) == value


def test_the_interval_counts_tasks_not_comparisons() -> None:
    share, low, high = clustered_interval([6, 3, 3, 0], [6, 6, 6, 6])
    assert share == 0.5
    # residuals 3, 0, 0 and -3: sqrt(4/3 · 18) / 24 = 0.2041, times 1.96 is 0.400
    assert (low, high) == pytest.approx((0.1, 0.9), abs=1e-3)
    assert clustered_interval([3], [4]) == (0.75, None, None)


def test_alpha_is_one_when_all_agree_and_undefined_when_nothing_varies() -> None:
    assert ordinal_alpha([{1: 1, 2: 1}, {1: -1, 2: -1}]) == pytest.approx(1.0)
    assert ordinal_alpha([{1: 1, 2: 1}, {1: 1, 2: 1}]) is None
    assert ordinal_alpha([{1: 1}]) is None


@pytest.mark.django_db
def test_agreement_is_counted_over_the_tasks_that_two_people_ranked(
    project: Project, ann: User, ben: User, mo: User
) -> None:
    task = factories.task(project, Task.Kind.RANK, replies=3)
    a, b, c = [r.pk for r in task.responses.order_by("id")]
    factories.ranking(project, ann, task=task, groups=[[a], [b], [c]])
    factories.ranking(project, ben, task=task, groups=[[a], [c], [b]])  # agrees on 2 of 3
    factories.ranking(project, mo, task=task, groups=[[a, b, c]])  # half of each
    factories.ranking(project, ann)  # alone
    found = ranking_agreement(project)
    values = {frozenset({pair.a, pair.b}): (pair.value, pair.comparisons) for pair in found.pairs}
    assert values == {
        frozenset({ann, ben}): (pytest.approx(2 / 3), 3),
        frozenset({ann, mo}): (0.5, 3),
        frozenset({ben, mo}): (0.5, 3),
    }
    assert found.value == pytest.approx(5 / 9)
    assert (found.comparisons, found.tasks) == (9, 1)


@pytest.mark.django_db
def test_without_shared_tasks_there_is_nothing_to_say(project: Project, ann: User) -> None:
    factories.ranking(project, ann)
    found = ranking_agreement(project)
    assert (found.value, found.alpha, found.pairs) == (None, None, [])


@pytest.mark.django_db
def test_taken_back_rankings_do_not_count(project: Project, ann: User, ben: User) -> None:
    first = factories.ranking(project, ann)
    factories.ranking(project, ben, task=first.task, retracted_at=first.created_at)
    assert ranking_agreement(project).tasks == 0
