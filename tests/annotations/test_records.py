"""Labels that come without a task."""

from __future__ import annotations

import uuid

import pytest

from annotations.models import Demonstration, Prompt, Ranking, Response, Task
from annotations.selectors import accepted_demonstrations, recent_labels, usable_rankings
from annotations.services.imported import (
    ImportedDemonstration,
    ImportedRanking,
    import_demonstrations,
    import_rankings,
)
from annotations.services.records import offer_demonstration, record_ranking
from tests import factories
from webapp.accounts.models import Project, User
from webapp.errors import BadInput, Conflict

pytestmark = pytest.mark.django_db
QUESTION = [{"role": "user", "content": "What is a kite?"}]


def test_imported_demonstrations_are_accepted_and_know_their_line(project: Project, ada: User) -> None:
    rows = [ImportedDemonstration(QUESTION, "A toy.\x00", "dolly.jsonl:1"), ImportedDemonstration(QUESTION, "A bird.")]
    assert import_demonstrations(project=project, author=ada, rows=rows) == 2
    first, second = accepted_demonstrations(project)
    assert (first.response.text, first.source_ref, first.response.author) == ("A toy.", "dolly.jsonl:1", None)
    assert first.prompt == second.prompt


def test_a_second_import_adds_nothing(project: Project, ada: User) -> None:
    demonstrations = [ImportedDemonstration(QUESTION, "A toy.")]
    rankings = [ImportedRanking(QUESTION, ["A toy.", "A bird."], [[0], [1]])]
    for wanted in (1, 0):
        assert import_demonstrations(project=project, author=ada, rows=demonstrations) == wanted
        assert import_rankings(project=project, author=ada, rows=rankings) == wanted
    assert (Response.objects.count(), Prompt.objects.count()) == (3, 1)


def test_the_same_row_may_come_into_another_project(project: Project, ada: User) -> None:
    rows = [ImportedDemonstration(QUESTION, "A toy.")]
    assert import_demonstrations(project=project, author=ada, rows=rows) == 1
    assert import_demonstrations(project=factories.project(ada), author=ada, rows=rows) == 1


def test_an_empty_reply_is_named_and_nothing_is_imported(project: Project, ada: User) -> None:
    rows = [ImportedDemonstration(QUESTION, "A toy."), ImportedDemonstration(QUESTION, " ", "dolly.jsonl:2")]
    with pytest.raises(BadInput, match=r"dolly\.jsonl:2: the reply is empty"):
        import_demonstrations(project=project, author=ada, rows=rows)
    assert not Demonstration.objects.exists()


def test_imported_rankings_keep_ties_and_order(project: Project, ada: User) -> None:
    rows = [ImportedRanking(QUESTION, ["worst", "best", "fair", "also fair"], [[1], [2, 3], [0]], strength=1.5)]
    import_rankings(project=project, author=ada, rows=rows)
    ranking = usable_rankings(project).get()
    texts = dict(Response.objects.values_list("pk", "text"))
    assert [[texts[pk] for pk in group] for group in ranking.groups] == [["best"], ["fair", "also fair"], ["worst"]]
    assert [texts[pk] for pk in ranking.order_shown] == ["worst", "best", "fair", "also fair"]
    assert ranking.strength == 1.5


def test_an_incomplete_ranking_is_named_and_nothing_is_imported(project: Project, ada: User) -> None:
    rows = [ImportedRanking(QUESTION, ["a", "b"], [[0]], source_ref="hh.jsonl:9")]
    with pytest.raises(BadInput, match=r"^hh\.jsonl:9: 1 of the 2 replies has no rank yet"):
        import_rankings(project=project, author=ada, rows=rows)


def test_imported_labels_are_not_in_a_persons_history(project: Project, ada: User) -> None:
    import_demonstrations(project=project, author=ada, rows=[ImportedDemonstration(QUESTION, "A toy.")])
    assert recent_labels(ada, project) == []


def test_a_better_answer_waits_for_review(project: Project, tess: User) -> None:
    prompt, token = factories.prompt(project), uuid.uuid4()
    label = offer_demonstration(prompt=prompt, text="A toy.", author=tess, token=token, source_ref="message:4")
    assert offer_demonstration(prompt=prompt, text="A toy.", author=tess, token=token) == label
    assert label.state == Demonstration.State.PENDING
    assert Task.objects.get().demonstration == label


def test_an_empty_better_answer_is_refused(project: Project, tess: User) -> None:
    with pytest.raises(BadInput):
        offer_demonstration(prompt=factories.prompt(project), text=" ", author=tess, token=uuid.uuid4())


def test_a_pick_between_two_replies_is_a_ranking(project: Project, tess: User) -> None:
    prompt, token = factories.prompt(project), uuid.uuid4()
    a, b = factories.response(prompt), factories.response(prompt)
    for _ in range(2):
        record_ranking(prompt=prompt, responses=[b, a], groups=[[a.pk], [b.pk]], author=tess, token=token)
    ranking = Ranking.objects.get()
    assert (ranking.groups, ranking.order_shown) == ([[a.pk], [b.pk]], [b.pk, a.pk])
    assert usable_rankings(project).get() == ranking


def test_a_pick_between_replies_to_different_prompts_is_refused(project: Project, tess: User) -> None:
    prompt = factories.prompt(project)
    other = factories.response(factories.prompt(project))
    with pytest.raises(Conflict):
        record_ranking(prompt=prompt, responses=[other], groups=[[other.pk]], author=tess, token=uuid.uuid4())
