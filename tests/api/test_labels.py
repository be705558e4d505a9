from __future__ import annotations

import uuid
from typing import Any

import pytest

from annotations.models import Demonstration, Ranking, Response, Task
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.accounts.services import archive_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(client_of: Any, ann: User) -> Any:
    return client_of(ann)


def take(api: Any, **body: Any) -> Any:
    return api.post("/api/v1/projects/kite/tasks/next/", body, format="json")


def test_an_annotator_takes_and_hands_in_a_demonstration(api: Any, ann: User, project: Project) -> None:
    task = factories.task(project)
    lease = take(api, kinds=["write"]).json()
    assert (lease["task"], lease["kind"]) == (task.pk, "write")
    body = {"token": str(uuid.uuid4()), "text": "Because."}
    first = api.post(f"/api/v1/leases/{lease['id']}/demonstration/", body, format="json")
    second = api.post(f"/api/v1/leases/{lease['id']}/demonstration/", body, format="json")
    assert (first.status_code, first.json()["id"]) == (201, second.json()["id"])
    assert Demonstration.objects.get(author=ann).response.text == "Because."


def test_a_ranking_names_the_replies_in_hand(api: Any, ann: User, project: Project) -> None:
    factories.task(project, Task.Kind.RANK, replies=3)
    lease = take(api).json()
    ids = [response["id"] for response in lease["responses"]]
    body = {"token": str(uuid.uuid4()), "groups": [[ids[2]], ids[:2]]}
    answer = api.post(f"/api/v1/leases/{lease['id']}/ranking/", body, format="json")
    assert answer.status_code == 201, answer.content
    assert Ranking.objects.get(author=ann).groups == [[ids[2]], ids[:2]]


def test_a_ranking_names_the_replies_that_are_left_when_one_was_deleted(api: Any, ann: User, project: Project) -> None:
    factories.task(project, Task.Kind.RANK, replies=3)
    lease = take(api).json()
    Response.objects.get(pk=lease["responses"][0]["id"]).delete()
    lease = api.post(f"/api/v1/leases/{lease['id']}/renew/").json()
    ids = [response["id"] for response in lease["responses"]]
    body = {"token": str(uuid.uuid4()), "groups": [[reply] for reply in ids]}
    answer = api.post(f"/api/v1/leases/{lease['id']}/ranking/", body, format="json")
    assert (answer.status_code, len(ids)) == (201, 2), answer.content


def test_a_ranking_of_other_replies_is_refused_with_a_sentence(api: Any, project: Project) -> None:
    factories.task(project, Task.Kind.RANK)
    lease = take(api).json()
    answer = api.post(
        f"/api/v1/leases/{lease['id']}/ranking/", {"token": str(uuid.uuid4()), "groups": [[1], [2]]}, format="json"
    )
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_no_task_is_no_content(api: Any, project: Project) -> None:
    assert take(api).status_code == 204


def test_a_skipped_task_does_not_come_back(api: Any, project: Project) -> None:
    factories.task(project)
    lease = take(api).json()
    assert api.post(f"/api/v1/leases/{lease['id']}/skip/", {"reason": "unclear"}, format="json").status_code == 204
    assert take(api).status_code == 204


def test_another_persons_lease_is_not_there(api: Any, client_of: Any, ben: User, project: Project) -> None:
    factories.task(project)
    lease = take(api).json()
    assert client_of(ben).post(f"/api/v1/leases/{lease['id']}/renew/").status_code == 404


def test_a_field_that_is_missing_is_named(api: Any, project: Project) -> None:
    factories.task(project)
    lease = take(api).json()
    answer = api.post(f"/api/v1/leases/{lease['id']}/demonstration/", {"text": "x"}, format="json")
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        "token: this is missing; give a UUID, such as 123e4567-e89b-42d3-a456-426614174000.",
    )


def test_a_token_that_comes_again_with_another_text_is_refused(api: Any, ann: User, project: Project) -> None:
    factories.task(project)
    lease = take(api).json()
    assert lease["guidelines"] == 1
    address, token = f"/api/v1/leases/{lease['id']}/demonstration/", str(uuid.uuid4())
    api.post(address, {"token": token, "text": "Because."}, format="json")
    answer = api.post(address, {"token": token, "text": "Because of the wind."}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "sent_before")
    assert Demonstration.objects.get(author=ann).response.text == "Because."


def test_an_archived_project_hands_out_nothing_and_takes_what_was_under_way(
    api: Any, ann: User, project: Project
) -> None:
    for _ in range(2):
        factories.task(project)
    lease = take(api).json()
    archive_project(project=project)
    assert take(api).status_code == 204
    body = {"token": str(uuid.uuid4()), "text": "Because."}
    assert api.post(f"/api/v1/leases/{lease['id']}/demonstration/", body, format="json").status_code == 201
    assert take(api).status_code == 204


def test_a_lease_is_renewed_and_given_back(api: Any, ann: User, project: Project) -> None:
    factories.task(project)
    lease = take(api).json()
    renewed = api.post(f"/api/v1/leases/{lease['id']}/renew/")
    assert renewed.status_code == 200
    assert renewed.json()["until"] >= lease["until"]
    assert api.post(f"/api/v1/leases/{lease['id']}/release/").status_code == 204
    assert ann.leases.get().outcome == "returned"
    assert take(api).json()["task"] == lease["task"]


def test_a_review_accepts_with_changes(api: Any, ben: User, project: Project) -> None:
    written = factories.demonstration(project, ben, "It fly.")
    task = factories.task(project, Task.Kind.REVIEW, prompt=written.prompt, demonstration=written)
    lease = take(api, kinds=["review"]).json()
    assert lease["task"] == task.pk
    body = {"token": str(uuid.uuid4()), "verdict": "edit", "text": "It flies.", "comment": "Grammar."}
    answer = api.post(f"/api/v1/leases/{lease['id']}/review/", body, format="json")
    assert answer.status_code == 201, answer.content
    assert answer.json()["verdict"] == "edit"
    review = written.reviews.get()
    assert (review.comment, existing(review.corrected).response.text) == ("Grammar.", "It flies.")


def test_a_review_without_a_verdict_is_refused_by_field(api: Any, ben: User, project: Project) -> None:
    written = factories.demonstration(project, ben)
    factories.task(project, Task.Kind.REVIEW, prompt=written.prompt, demonstration=written)
    lease = take(api).json()
    answer = api.post(f"/api/v1/leases/{lease['id']}/review/", {"token": str(uuid.uuid4())}, format="json")
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["verdict"])


def test_a_task_of_another_kind_is_not_handed_in_as_this_one(api: Any, project: Project) -> None:
    factories.task(project)
    lease = take(api).json()
    body = {"token": str(uuid.uuid4()), "groups": [[1], [2]]}
    answer = api.post(f"/api/v1/leases/{lease['id']}/ranking/", body, format="json")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
