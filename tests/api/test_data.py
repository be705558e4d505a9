"""Labels and exports by machine: what is listed, filtered and handed out as a file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import factories
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db
PROJECT = "/api/v1/projects/kite/"


def ids(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_a_project_and_its_settings_are_told(client_of: Any, ann: User, project: Project) -> None:
    told = client_of(ann).get(PROJECT).json()
    assert (told["slug"], told["name"]) == ("kite", project.name)


def test_demonstrations_are_listed_newest_first_and_filtered(
    client_of: Any, mo: User, ann: User, ben: User, project: Project
) -> None:
    first = factories.demonstration(project, ann, "The wind carries it.")
    second = factories.demonstration(project, ben, "A string holds it.")
    api, address = client_of(mo), f"{PROJECT}demonstrations/"
    assert ids(api.get(address)) == [second.pk, first.pk]
    assert ids(api.get(address, {"q": "string"})) == [second.pk]
    assert ids(api.get(address, {"author": ann.pk})) == [first.pk]
    (row,) = api.get(address, {"q": "string"}).json()["results"]
    assert row["text"] == "A string holds it."


def test_rankings_are_listed_with_their_groups(
    client_of: Any, mo: User, ann: User, ben: User, project: Project
) -> None:
    first, second = factories.ranking(project, ann), factories.ranking(project, ben)
    api, address = client_of(mo), f"{PROJECT}rankings/"
    assert ids(api.get(address)) == [second.pk, first.pk]
    (row,) = api.get(address, {"author": ann.pk}).json()["results"]
    assert row["groups"] == first.groups


def test_judgments_are_listed_by_verdict(client_of: Any, mo: User, ann: User, project: Project) -> None:
    good, bad = (factories.judgment(project, ann, f"reply {good}", good=good) for good in (True, False))
    api, address = client_of(mo), f"{PROJECT}judgments/"
    assert ids(api.get(address)) == [bad.pk, good.pk]
    assert ids(api.get(address, {"verdict": "good"})) == [good.pk]
    assert ids(api.get(address, {"verdict": "bad"})) == [bad.pk]


@pytest.mark.parametrize("kind", ["demonstrations", "rankings", "judgments"])
def test_labels_are_for_those_who_may_see_data(
    client_of: Any, ann: User, stranger: User, project: Project, kind: Any
) -> None:
    assert client_of(ann).get(f"{PROJECT}{kind}/").status_code == 403
    assert client_of(stranger).get(f"{PROJECT}{kind}/").status_code == 404


@pytest.mark.parametrize(
    ("query", "field"), [({"author": "me"}, "author"), ({"state": "gone"}, "state"), ({"before": "x"}, "before")]
)
def test_a_filter_that_is_wrong_is_named(client_of: Any, mo: User, project: Project, query: Any, field: Any) -> None:
    answer = client_of(mo).get(f"{PROJECT}demonstrations/", query)
    assert answer.status_code == 400
    assert field in answer.json()["message"]


def exported(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.content
    return [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]


def test_labels_go_out_as_lines_of_json(client_of: Any, mo: User, ann: User, project: Project) -> None:
    factories.demonstration(project, ann, "Nobody has read this yet.")
    factories.demonstration(project, ann, "The wind carries it.", state="accepted")
    answer = client_of(mo).get(f"{PROJECT}exports/demonstrations/")
    assert 'filename="kite' in answer["Content-Disposition"]
    (row,) = exported(answer)
    assert "The wind carries it." in json.dumps(row)


def test_rankings_go_out_in_trls_format(client_of: Any, mo: User, ann: User, project: Project) -> None:
    factories.ranking(project, ann, replies=2)
    (row,) = exported(client_of(mo).get(f"{PROJECT}exports/rankings/", {"as": "preference"}))
    assert {"prompt", "chosen", "rejected"} <= set(row)


def test_an_export_of_another_kind_or_format_is_refused_in_words(client_of: Any, mo: User, project: Project) -> None:
    api = client_of(mo)
    assert api.get(f"{PROJECT}exports/nonsense/").status_code == 404
    answer = api.get(f"{PROJECT}exports/rankings/", {"as": "docx"})
    assert (answer.status_code, "Choose one of" in answer.json()["message"]) == (404, True)


def test_an_annotator_exports_nothing(client_of: Any, ann: User, project: Project) -> None:
    assert client_of(ann).get(f"{PROJECT}exports/rankings/").status_code == 403


def test_prompts_come_with_right_answers_and_annotators_are_not_told(
    client_of: Any, mo: User, ann: User, project: Project
) -> None:
    conversations = [[{"role": "user", "content": text}] for text in ("What is 2+2?", "What is 3+3?")]
    body = {"conversations": conversations, "references": ["4", None], "data": [{"level": 1}, None], "open_tasks": True}
    api = client_of(mo)
    first, second = api.post(f"{PROJECT}prompts/", body, format="json").json()
    assert (first["reference"], first["data"]) == ("4", {"level": 1})
    assert (second["reference"], second["data"]) == (None, None)
    refused = api.post(f"{PROJECT}prompts/", body | {"references": ["4"]}, format="json")
    assert refused.status_code == 400
    assert "references: give one for each conversation" in refused.content.decode()
    leased = client_of(ann).post(f"{PROJECT}tasks/next/", {}, format="json").json()
    assert leased["prompt"]["id"] in (first["id"], second["id"])
    assert "reference" not in leased["prompt"]
