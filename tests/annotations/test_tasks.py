"""Tasks are opened as the project's settings say."""

from __future__ import annotations

import pytest

from annotations.models import Prompt, Task
from annotations.services.prompts import withdraw_prompts
from annotations.services.tasks import open_rank_task, open_rank_tasks, open_write_task, open_write_tasks
from tests import factories
from webapp.accounts.models import Project
from webapp.errors import BadInput

pytestmark = pytest.mark.django_db


@pytest.fixture
def prompt(project: Project) -> Prompt:
    return factories.prompt(project)


def test_overlap_comes_from_the_project_unless_it_is_given(project: Project, prompt: Prompt) -> None:
    project.write_overlap, project.rank_overlap = 2, 5
    project.save()
    replies = [factories.response(prompt) for _ in range(2)]
    assert open_write_task(prompt=prompt).overlap == 2
    assert open_rank_task(prompt=prompt, responses=replies).overlap == 5
    assert open_rank_task(prompt=prompt, responses=replies, overlap=1).overlap == 1


def test_many_tasks_are_opened_at_once(project: Project) -> None:
    prompts = [factories.prompt(project) for _ in range(3)]
    sets = [[factories.response(p) for _ in range(4)] for p in prompts]
    assert [task.prompt for task in open_write_tasks(prompts=prompts)] == prompts
    tasks = open_rank_tasks(sets=sets, priority=3, source_ref="run:7")
    assert [list(task.responses.all()) for task in tasks] == sets
    assert {(task.prompt, task.priority, task.source_ref) for task in tasks} == {(p, 3, "run:7") for p in prompts}


@pytest.mark.parametrize("count", [0, 1, 10])
def test_a_ranking_shows_two_to_nine_replies(prompt: Prompt, count: int) -> None:
    with pytest.raises(BadInput, match="2 to 9"):
        open_rank_task(prompt=prompt, responses=[factories.response(prompt) for _ in range(count)])


def test_a_reply_is_not_ranked_against_itself(prompt: Prompt) -> None:
    with pytest.raises(BadInput, match="different"):
        open_rank_task(prompt=prompt, responses=[factories.response(prompt)] * 2)


def test_replies_to_different_prompts_are_not_ranked_together(project: Project, prompt: Prompt) -> None:
    replies = [factories.response(prompt), factories.response(factories.prompt(project))]
    with pytest.raises(BadInput, match="same prompt"):
        open_rank_tasks(sets=[replies])
    with pytest.raises(BadInput, match="same prompt"):
        open_rank_task(prompt=prompt, responses=replies)


def test_nothing_is_asked_about_a_withdrawn_prompt(prompt: Prompt) -> None:
    withdraw_prompts(prompts=Prompt.objects.all())
    prompt.refresh_from_db()
    with pytest.raises(BadInput, match="withdrawn"):
        open_write_task(prompt=prompt)
    assert not Task.objects.exists()
