from __future__ import annotations

from typing import Any

import pytest

from annotations.models import Demonstration, Judgment, Prompt, Ranking
from annotations.services.imported import (
    ImportedDemonstration,
    ImportedJudgment,
    ImportedRanking,
    import_demonstrations,
    import_judgments,
    import_rankings,
)
from webapp.accounts.models import Project, User
from webapp.errors import BadInput

pytestmark = pytest.mark.django_db

QUESTION = [{"role": "user", "content": "What is a kite?"}]
LONGER = [*QUESTION, {"role": "assistant", "content": "A fish."}, {"role": "user", "content": "Sure?"}]


def test_two_people_who_rank_alike_are_two_rankings(project: Project, ada: User) -> None:
    rows = [ImportedRanking(QUESTION, ["A toy.", "A fish."], [[0], [1]], annotator=name) for name in ("ann", "ben")]
    assert import_rankings(project=project, author=ada, rows=rows) == 2
    assert import_rankings(project=project, author=ada, rows=rows) == 0
    assert sorted(Ranking.objects.values_list("annotator", flat=True)) == ["ann", "ben"]


def test_a_judgment_keeps_its_reply_its_annotator_and_its_weight(project: Project, ada: User) -> None:
    rows = [ImportedJudgment(QUESTION, "A fish.", False, "a.jsonl:1", annotator="ann", weight=0.5)]
    assert [import_judgments(project=project, author=ada, rows=rows) for _ in range(2)] == [1, 0]
    judgment = Judgment.objects.get()
    assert (judgment.response.text, judgment.good, judgment.annotator, judgment.weight) == (
        "A fish.",
        False,
        "ann",
        0.5,
    )
    assert not Demonstration.objects.exists()


def test_masked_turns_stay_with_the_demonstration(project: Project, ada: User) -> None:
    import_demonstrations(project=project, author=ada, rows=[ImportedDemonstration(LONGER, "A toy.", masked_turns=[1])])
    assert Demonstration.objects.get().masked_turns == [1]


def test_only_turns_of_the_assistant_can_be_masked(project: Project, ada: User) -> None:
    with pytest.raises(BadInput, match="only turns of the assistant"):
        import_demonstrations(project=project, author=ada, rows=[ImportedDemonstration(LONGER, "A.", masked_turns=[2])])


def test_a_row_marked_held_out_stays_held_out(project: Project, ada: User) -> None:
    for number in range(20):
        question = [{"role": "user", "content": f"What is {number}?"}]
        import_demonstrations(
            project=project, author=ada, rows=[ImportedDemonstration(question, "A.", split="heldout")]
        )
    assert set(Prompt.objects.values_list("split", flat=True)) == {"heldout"}


def test_a_prompt_that_was_open_to_training_is_held_out_from_now_on(project: Project, ada: User) -> None:
    questions = [[{"role": "user", "content": f"What is {number}?"}] for number in range(20)]
    import_demonstrations(project=project, author=ada, rows=[ImportedDemonstration(q, "A.") for q in questions])
    assert Prompt.objects.filter(split="train").exists()
    rows = [ImportedJudgment(q, "B.", True, split="heldout") for q in questions]
    import_judgments(project=project, author=ada, rows=rows)
    assert set(Prompt.objects.values_list("split", flat=True)) == {"heldout"}


def test_a_reply_keeps_its_indentation_and_its_last_newline(project: Project, ada: User) -> None:
    import_demonstrations(project=project, author=ada, rows=[ImportedDemonstration(QUESTION, "    x = 1\n    y\n")])
    assert Demonstration.objects.get().response.text == "    x = 1\n    y\n"


def test_ratings_flags_and_a_reason_come_in_by_reply(project: Project, ada: User) -> None:
    row = ImportedRanking(
        QUESTION, ["A toy.", "A fish."], [[0], [1]], ratings={0: 7, 1: 2}, flags={1: ["wrong"]}, reason="It flies."
    )
    import_rankings(project=project, author=ada, rows=[row])
    ranking = Ranking.objects.get()
    toy, fish = ranking.order_shown
    assert ranking.ratings == {str(toy): 7, str(fish): 2}
    assert ranking.flags == {str(fish): ["wrong"]}
    assert ranking.reason == "It flies."


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_weight_that_is_none_is_named(project: Project, ada: User, weight: Any) -> None:
    with pytest.raises(BadInput, match=r"a\.jsonl:1: a weight is a number"):
        import_judgments(
            project=project, author=ada, rows=[ImportedJudgment(QUESTION, "A", True, "a.jsonl:1", weight=weight)]
        )
