"""Judges as they are kept: their keys, whose models they may be, what they may cost."""

from __future__ import annotations

from typing import Any

import pytest

from annotations.models import Prompt
from tests import factories
from tests.judges.conftest import evaluate_run
from webapp.accounts.models import Project, User
from webapp.encryption import decrypt
from webapp.errors import BadInput, Conflict
from webapp.judges.endpoint import PURPOSE
from webapp.judges.jobs import setup_of
from webapp.judges.models import Judge, JudgeAnswer, JudgeJob
from webapp.judges.services import (
    add_judge,
    archive_judge,
    change_judge,
    ranked_pair,
    restore_judge,
    start_agreement,
    start_comparison,
    start_try,
)
from webapp.judges.tasks import forget_erased_prompts
from webapp.registry.models import ModelVersion

pytestmark = pytest.mark.django_db


@pytest.fixture
def judge(project: Project, ada: User) -> Judge:
    values = {"name": "Big", "address": "https://example.org/v1/", "model": "big", "rubric": "Be right."}
    return add_judge(project=project, by=ada, key="sk-1", **values)


def key_of(judge: Judge) -> str:
    return decrypt(Judge.objects.get(pk=judge.pk).encrypted_key, purpose=PURPOSE)


def test_the_key_is_stored_encrypted_and_stays_when_none_is_given(judge: Judge) -> None:
    assert "sk-1" not in judge.encrypted_key
    change_judge(judge=judge, name="Bigger", key=None)
    assert key_of(judge) == "sk-1"
    change_judge(judge=judge, key="sk-2")
    assert key_of(judge) == "sk-2"


def test_a_key_never_goes_to_another_address(judge: Judge) -> None:
    """Or whoever may edit a judge could have its key sent to themselves."""
    change_judge(judge=judge, address="https://evil.example.org/v1", key=None)
    assert key_of(judge) == ""


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"address": "http://127.0.0.1:8300/v1"}, "address"),
        ({"model": " "}, "model"),
        ({"price_in": 1.0}, "price_out"),
        ({"spending_limit": 5.0}, "spending_limit"),
        ({"color": "red"}, "color"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_their_field(judge: Judge, values: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as refused:
        change_judge(judge=judge, **values)
    assert refused.value.data["field"] == field
    assert Judge.objects.get(pk=judge.pk).address == "https://example.org/v1"


def test_only_models_of_the_project_can_judge(judge: Judge, stranger: User) -> None:
    other = factories.project(stranger)
    with pytest.raises(BadInput, match="another project"):
        change_judge(judge=judge, own_model=factories.model_version(other))
    with pytest.raises(Conflict, match="cannot answer chats"):
        change_judge(judge=judge, own_model=factories.model_version(judge.project, ModelVersion.Kind.REWARD))
    model = factories.model_version(judge.project)
    changed = change_judge(judge=judge, own_model=model)
    assert (changed.address, changed.encrypted_key, setup_of(changed).model) == ("", "", model.served_name)


def test_an_empty_rubric_is_the_projects_guidelines(judge: Judge) -> None:
    assert setup_of(judge).rubric == "Be right."
    assert setup_of(change_judge(judge=judge, rubric=" ")).rubric == "Be correct, be kind, be brief."
    judge.project.guidelines.all().delete()
    with pytest.raises(Conflict, match="no rubric"):
        setup_of(Judge.objects.get(pk=judge.pk))


def test_what_cannot_be_judged_is_refused_before_anything_starts(judge: Judge, ada: User, stranger: User) -> None:
    with pytest.raises(BadInput, match="Nobody has ranked"):
        start_agreement(judge=judge, by=ada)
    with pytest.raises(BadInput, match="two replies"):
        start_try(judge=judge, by=ada, prompt="Why?", replies=["So.", " "])
    with pytest.raises(BadInput, match="one model only"):
        start_comparison(judge=judge, by=ada, run=evaluate_run(judge.project, [("a", "b")], baseline=False))
    with pytest.raises(BadInput, match="of this project"):
        start_comparison(judge=judge, by=ada, run=evaluate_run(factories.project(stranger), [("a", "b")]))
    assert not JudgeJob.objects.exists()


def test_an_archived_judge_is_asked_nothing(judge: Judge, ada: User) -> None:
    job = start_try(judge=judge, by=ada, prompt="Why?", replies=["So.", "Because."])
    with pytest.raises(Conflict, match="still asked"):
        archive_judge(judge=judge)
    JudgeJob.objects.filter(pk=job.pk).update(state="done")
    archive_judge(judge=judge)
    judge.refresh_from_db()
    with pytest.raises(Conflict, match="archived"):
        start_try(judge=judge, by=ada, prompt="Why?", replies=["So.", "Because."])
    restore_judge(judge=judge)
    judge.refresh_from_db()
    assert start_try(judge=judge, by=ada, prompt="Why?", replies=["So.", "Because."]).state == "queued"


def test_a_ranked_pair_to_try_has_what_people_said(judge: Judge, ann: User) -> None:
    assert ranked_pair(judge) is None
    ranking = factories.ranking(judge.project, ann, replies=3)
    pair = ranked_pair(judge)
    assert pair is not None
    assert (pair["ranking"], pair["words"]) == (ranking.pk, {str(ann.pk): 1})
    Prompt.objects.update(source="chat")
    assert ranked_pair(judge) is None


def test_answers_about_erased_prompts_go(judge: Judge, ada: User) -> None:
    kept, erased = factories.prompt(judge.project), factories.prompt(judge.project)
    for number, prompt in enumerate((kept, erased)):
        JudgeAnswer.objects.create(project=judge.project, key=str(number), prompt=prompt, verdict="tie", reason="x")
        job = start_try(judge=judge, by=ada, prompt="Why?", replies=["So.", "Because."])
        JudgeJob.objects.filter(pk=job.pk).update(data={**job.data, "prompt_id": prompt.pk})
    erased.erased_at = erased.created_at
    erased.save()
    assert forget_erased_prompts() == 1
    assert list(JudgeAnswer.objects.values_list("prompt", flat=True)) == [kept.pk]
    assert [job.data["prompt_id"] for job in JudgeJob.objects.all()] == [kept.pk]
