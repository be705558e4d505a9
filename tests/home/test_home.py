from __future__ import annotations

import uuid

from django.test import Client

from annotations.models import Task
from annotations.services.labels import submit_demonstration
from annotations.services.leases import lease_next
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User


def test_a_new_installation_asks_for_its_first_account(client: Client, db: None) -> None:
    page = client.get("/").content

    assert b"Create the first account" in page


def test_an_installation_in_use_asks_for_a_sign_in(client: Client, root: User) -> None:
    page = client.get("/").content

    assert b"Create the first account" not in page
    assert b"Sign in" in page


def test_whoever_runs_it_is_offered_a_project(client: Client, root: User) -> None:
    client.force_login(root)

    assert b"New project" in client.get("/").content


def test_a_stranger_is_told_to_ask_for_an_invitation(client: Client, project: Project, stranger: User) -> None:
    client.force_login(stranger)

    assert b"Ask a manager for an invitation link" in client.get("/").content


def test_each_station_counts_what_is_there(client: Client, project: Project, ada: User, ann: User) -> None:
    factories.demonstration(project, ann)
    factories.ranking(project, ann)
    factories.deployment(project)
    client.force_login(ada)

    stations = {station.key: station for station in client.get("/").context["stations"]}

    assert stations["prompts"].number == 2
    assert stations["demonstrations"].number == 1
    assert stations["rankings"].number == 1
    assert stations["deployed"].note == "sft 1"
    assert all(station.url for station in stations.values())


def test_the_loop_links_only_where_the_person_may_go(client: Client, project: Project, ann: User) -> None:
    client.force_login(ann)
    stations = client.get("/projects/kite/loop/").context["stations"]

    assert [station.key for station in stations if station.url] == ["chats"]
    for station in stations:
        if station.url:
            assert client.get(station.url).status_code == 200


def test_every_link_of_a_managers_loop_opens(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    for station in client.get("/").context["stations"]:
        assert client.get(station.url).status_code == 200, station.url


def test_an_annotator_is_sent_to_the_labels_first(client: Client, project: Project, ann: User) -> None:
    factories.task(project, Task.Kind.WRITE)
    factories.deployment(project)
    client.force_login(ann)

    titles = [step.title for step in client.get("/").context["steps"]]

    assert titles == ["1 task waiting for you", "Chat with Kite"]


def test_labels_that_only_others_can_give_are_not_offered(
    client: Client, project: Project, ann: User, ben: User
) -> None:
    demonstration = factories.demonstration(project, ann)
    factories.task(project, Task.Kind.REVIEW, prompt=demonstration.prompt, demonstration=demonstration)
    client.force_login(ann)
    (step,) = client.get("/").context["steps"]
    assert (step.title, "1 more label is wanted, from other people" in step.why) == ("All done", True)

    client.force_login(ben)
    assert client.get("/").context["steps"][0].title == "1 task waiting for you"


def test_the_labels_of_today_are_among_those_given(client: Client, project: Project, ann: User) -> None:
    for _ in range(2):
        factories.task(project)
        submit_demonstration(
            lease=existing(lease_next(person=ann, project=project)), token=uuid.uuid4(), text="Because."
        )
    client.force_login(ann)

    own = client.get("/").context["own"]

    assert (own["labels"], own["today"], own["open"]) == (2, 2, 0)  # though none is accepted yet


def test_a_tester_is_sent_to_the_chat(client: Client, project: Project, tess: User) -> None:
    factories.task(project, Task.Kind.WRITE)
    client.force_login(tess)
    assert [step.title for step in client.get("/").context["steps"]] == ["All done"]

    factories.deployment(project)
    assert [step.title for step in client.get("/").context["steps"]] == ["Chat with Kite"]


def test_a_manager_is_shown_the_next_gap_in_the_loop(client: Client, project: Project, ada: User, ann: User) -> None:
    client.force_login(ada)
    assert client.get("/").context["steps"][0].title == "Bring in text and prompts"

    factories.demonstration(project, ann)
    assert client.get("/").context["steps"][0].title == "Fine-tune on the demonstrations"

    factories.model_version(project, stage="sft")
    assert client.get("/").context["steps"][0].title == "Deploy a model"


def test_what_a_run_is_about_to_make_is_watched_and_not_asked_for(
    client: Client, project: Project, ada: User, ann: User
) -> None:
    client.force_login(ada)
    factories.corpus(project)
    factories.demonstration(project, ann)
    assert client.get("/").context["steps"][0].label == "Clean the text"

    run = factories.run(project, "corpus", state="running")
    (step,) = client.get("/").context["steps"]
    assert step.title == "corpus 1 is under way"
    assert client.get(step.url).status_code == 200

    run.state = "succeeded"
    run.save()
    assert client.get("/").context["steps"][0].label == "Train a tokenizer"


def test_every_first_step_leads_somewhere(client: Client, project: Project, ada: User, ann: User) -> None:
    client.force_login(ada)
    factories.demonstration(project, ann)
    for step in client.get("/").context["steps"]:
        assert client.get(step.url).status_code == 200, step.title
