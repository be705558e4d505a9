from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from annotations.models import Prompt, Task
from annotations.services.prompts import withdraw_prompts
from tests import factories
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db

CONVERSATION = [{"role": "user", "content": "Why is the sky blue?"}]


def test_nobody_is_asked_for_a_token(project: Project) -> None:
    answer = APIClient().get("/api/v1/projects/")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


def test_people_see_their_own_projects(client_of: Any, ann: User, stranger: User, project: Project) -> None:
    assert [row["slug"] for row in client_of(ann).get("/api/v1/projects/").json()["results"]] == ["kite"]
    assert client_of(stranger).get("/api/v1/projects/").json()["results"] == []
    assert client_of(stranger).get("/api/v1/projects/kite/").status_code == 404


def test_a_manager_adds_prompts_once(client_of: Any, mo: User, project: Project) -> None:
    body = {"conversations": [CONVERSATION, CONVERSATION], "open_tasks": True}
    answer = client_of(mo).post("/api/v1/projects/kite/prompts/", body, format="json")
    assert answer.status_code == 201, answer.content
    assert Prompt.objects.get().source == Prompt.Source.API
    assert Task.objects.filter(kind=Task.Kind.WRITE).count() == 1


def test_prompts_added_again_are_not_asked_about_twice(client_of: Any, mo: User, project: Project) -> None:
    body = {"conversations": [CONVERSATION], "open_tasks": True}
    for _ in range(2):
        client_of(mo).post("/api/v1/projects/kite/prompts/", body, format="json")
    assert Task.objects.count() == 1


def test_a_withdrawn_prompt_is_refused_with_all_others_unless_it_is_to_be_restored(
    client_of: Any, mo: User, project: Project
) -> None:
    other = [{"role": "user", "content": "Something else?"}]
    client_of(mo).post("/api/v1/projects/kite/prompts/", {"conversations": [CONVERSATION]}, format="json")
    withdraw_prompts(prompts=Prompt.objects.all())
    body = {"conversations": [other, CONVERSATION], "open_tasks": True}
    answer = client_of(mo).post("/api/v1/projects/kite/prompts/", body, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "withdrawn_prompts")
    assert "Prompt 2 was withdrawn" in answer.json()["message"]
    assert Prompt.objects.count() == 1

    answer = client_of(mo).post("/api/v1/projects/kite/prompts/", {**body, "restore": True}, format="json")
    assert [row["withdrawn_at"] for row in answer.json()] == [None, None]
    assert Task.objects.count() == 2


def test_an_annotator_may_not_add_prompts(client_of: Any, ann: User, project: Project) -> None:
    answer = client_of(ann).post("/api/v1/projects/kite/prompts/", {"conversations": [CONVERSATION]}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    assert not Prompt.objects.exists()


def test_lists_go_on_from_where_the_page_before_ended(client_of: Any, mo: User, project: Project) -> None:
    for number in range(51):
        factories.prompt(project, f"prompt {number}")
    first = client_of(mo).get("/api/v1/projects/kite/prompts/").json()
    second = client_of(mo).get("/api/v1/projects/kite/prompts/", {"before": first["older"]}).json()
    assert (len(first["results"]), len(second["results"]), second["older"]) == (50, 1, None)


def test_the_schema_is_open_and_names_every_path() -> None:
    text = Client().get("/api/v1/schema/").content.decode()
    assert "/api/v1/projects/{slug}/tasks/next/" in text
