"""Labels become the rows that training reads."""

from __future__ import annotations

import pytest

from annotations.export import demonstration_rows, judgment_rows, prompt_rows, ranking_rows
from annotations.models import Demonstration, Prompt, Response, Task
from annotations.services.prompts import withdraw_prompts
from tests import factories
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db
ACCEPTED = Demonstration.State.ACCEPTED


def test_a_demonstration_row_ends_with_the_reply(project: Project, ann: User) -> None:
    label = factories.demonstration(
        project, ann, "A toy.", prompt=factories.prompt(project, "What is a kite?"), state=ACCEPTED
    )
    (row,) = demonstration_rows(project)
    assert row.id == f"demonstration:{label.pk}"
    assert [(turn.role, turn.content) for turn in row.messages] == [
        ("user", "What is a kite?"),
        ("assistant", "A toy."),
    ]


def test_a_ranking_row_has_the_replies_as_they_were_shown_and_indices_into_them(project: Project, ann: User) -> None:
    task = factories.task(project, Task.Kind.RANK, replies=3)
    a, b, c = task.responses.order_by("id")
    label = factories.ranking(project, ann, task=task, groups=[[b.pk], [a.pk, c.pk]], strength=2)
    label.order_shown = [c.pk, b.pk, a.pk]
    label.save()
    (row,) = ranking_rows(project)
    assert row.id == f"ranking:{label.pk}"
    assert row.replies == [c.text, b.text, a.text]
    assert row.groups == [[1], [2, 0]]
    assert (row.strength, row.annotator) == (2, f"person:{ann.pk}")


def test_a_system_turn_goes_in_front_where_there_is_none(project: Project) -> None:
    factories.prompt(project, "Hi.")
    factories.prompt(project, messages=[{"role": "system", "content": "Own."}, {"role": "user", "content": "Hi."}])
    plain, own = prompt_rows(project, system="Be brief.")
    assert [turn.content for turn in plain.messages] == ["Be brief.", "Hi."]
    assert [turn.content for turn in own.messages] == ["Own.", "Hi."]


def test_a_judgment_row_has_the_reply_and_its_verdict(project: Project, ann: User) -> None:
    label = factories.judgment(project, ann, "A toy.", good=False, weight=0.5)
    (row,) = judgment_rows(project)
    assert (row.id, row.reply, row.good, row.weight) == (f"judgment:{label.pk}", "A toy.", False, 0.5)
    assert row.annotator == f"person:{ann.pk}"


def test_an_imported_label_keeps_its_weight_and_its_annotator(project: Project, ann: User) -> None:
    factories.ranking(project, ann, annotator="rater-7", weight=0.25)
    factories.demonstration(project, ann, state=ACCEPTED, weight=2.0)
    (ranking,), (demonstration,) = ranking_rows(project), demonstration_rows(project)
    assert (ranking.annotator, ranking.weight, demonstration.weight) == ("rater-7", 0.25, 2.0)


def test_masked_turns_stay_masked_when_the_system_prompt_goes_in_front(project: Project, ann: User) -> None:
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Go away."},
        {"role": "user", "content": "Please?"},
    ]
    factories.demonstration(
        project, ann, "Hello!", prompt=factories.prompt(project, messages=turns), state=ACCEPTED, masked_turns=[1]
    )
    (plain,), (led,) = demonstration_rows(project), demonstration_rows(project, system="Be kind.")
    assert (plain.masked_turns, led.masked_turns) == ([1], [2])
    assert led.messages[2].content == "Go away."


def test_the_sides_of_the_split_are_apart(project: Project, ann: User) -> None:
    train, heldout = factories.prompt(project), factories.prompt(project, split=Prompt.Split.HELDOUT)
    for prompt in (train, heldout):
        factories.demonstration(project, ann, prompt=prompt, state=ACCEPTED)
    assert [row.id for row in prompt_rows(project, "train")] == [f"prompt:{train.pk}"]
    assert [row.id for row in prompt_rows(project, "heldout")] == [f"prompt:{heldout.pk}"]
    assert len(list(demonstration_rows(project, "train"))) == 1
    assert len(list(demonstration_rows(project))) == 2


def test_what_was_withdrawn_rejected_or_taken_back_is_left_out(project: Project, ann: User) -> None:
    gone = factories.prompt(project)
    factories.demonstration(project, ann, prompt=gone, state=ACCEPTED)
    factories.demonstration(project, ann, state=Demonstration.State.REJECTED)
    factories.demonstration(project, ann)
    label = factories.demonstration(project, ann, state=ACCEPTED)
    label.retracted_at = label.created_at
    label.save()
    withdraw_prompts(prompts=Prompt.objects.filter(pk=gone.pk))
    assert list(demonstration_rows(project)) == []
    assert len(list(prompt_rows(project))) == 3


def test_another_projects_labels_are_left_out(project: Project, ann: User) -> None:
    factories.ranking(factories.project(), ann)
    assert list(ranking_rows(project)) == []


def test_a_ranking_of_which_a_reply_was_deleted_is_left_out_and_counted(
    project: Project, ann: User, caplog: pytest.LogCaptureFixture
) -> None:
    kept, broken = (factories.ranking(project, ann) for _ in range(2))
    Response.objects.get(pk=broken.order_shown[1]).delete()
    assert [row.id for row in ranking_rows(project)] == [f"ranking:{kept.pk}"]
    assert "left out 1 rankings" in caplog.text
