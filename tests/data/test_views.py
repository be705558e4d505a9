from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotations.models import Demonstration, Prompt, Task
from annotations.selectors import accepted_demonstrations
from annotations.services.prompts import digest_of, withdraw_prompts
from tests import factories
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def mos(client: Client, mo: User) -> Any:
    client.force_login(mo)
    return client


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def page(client: Client, name: Any, *args: Any, **query: Any) -> Any:
    answer = client.get(reverse(name, args=args), query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_an_empty_project_says_what_to_do_next(mos: Any) -> None:
    assert "Import text" in page(mos, "data", "kite")
    assert "No prompts yet" in page(mos, "data_prompts", "kite")
    assert "No rankings yet" in page(mos, "data_rankings", "kite")


def test_lists_are_narrowed_by_their_filters(mos: Any, project: Project) -> None:
    factories.prompt(project, "Why is the sky blue?", split="heldout")
    factories.prompt(project, "Why is grass green?", split="train")
    found = page(mos, "data_prompts", "kite", split="heldout")
    assert "sky" in found
    assert "grass" not in found
    assert "Nothing fits these filters" in page(mos, "data_prompts", "kite", q="sea")


def test_a_filter_that_is_nonsense_counts_as_none(mos: Any, project: Project) -> None:
    factories.prompt(project, "Why is the sky blue?")
    assert "sky" in page(mos, "data_prompts", "kite", split="sideways")


def test_a_page_that_is_nonsense_is_refused_by_name(mos: Any, project: Project) -> None:
    response = mos.get("/projects/kite/data/prompts/", {"before": "x"})
    assert response.status_code == 400
    assert "before: give a whole number" in response.content.decode()


def test_labels_stand_with_their_author(mos: Any, project: Project, ann: User) -> None:
    factories.demonstration(project, ann, "Because of scattering.")
    factories.ranking(project, ann)
    assert "Because of scattering." in page(mos, "data_demonstrations", "kite", author=str(ann.pk))
    assert "Ann" in page(mos, "data_rankings", "kite")
    assert "Because of scattering." in page(mos, "data_prompt", "kite", Demonstration.objects.get().prompt_id)


def test_judgments_are_listed_with_their_verdict_and_can_be_withdrawn(mos: Any, project: Project, ann: User) -> None:
    label = factories.judgment(project, ann, "It is a toy.", good=False, annotator="rater-7")
    factories.judgment(project, ann, "It is a bird.", good=True)
    bad = page(mos, "data_judgments", "kite", verdict="bad")
    assert "It is a toy." in bad
    assert "rater-7" in bad
    assert "It is a bird." not in bad
    assert "It is a toy." in page(mos, "data_prompt", "kite", label.prompt_id)
    mos.post(reverse("data_label_withdraw", args=["kite", "judgment", label.pk]))
    label.refresh_from_db()
    assert label.retracted_at is not None


def test_what_people_said_of_replies_stands_with_their_ranking(mos: Any, project: Project, ann: User) -> None:
    task = factories.task(project, Task.Kind.RANK, replies=2)
    first, second = task.responses.order_by("pk")
    factories.ranking(
        project, ann, task=task, strength=2, reason="It rambles.",
        ratings={str(first.pk): 6}, flags={str(second.pk): ["long"]},
    )  # fmt: skip
    shown = page(mos, "data_prompt", "kite", task.prompt_id)
    for words in ("Rated 6 of 7", "Too long", "strength 2 of 3", "It rambles."):
        assert words in shown
    listed = page(mos, "data_rankings", "kite")
    for words in ("Too long", "strength 2", "It rambles."):
        assert words in listed


def test_prompts_are_written_one_a_line(mos: Any, project: Project) -> None:
    mos.post(reverse("data_prompt_add", args=["kite"]), {"text": "Sing\r\n\r\nDance\r\nSing", "open_tasks": "on"})
    assert sorted(prompt.text for prompt in Prompt.objects.all()) == ["Dance", "Sing"]
    assert project.tasks.count() == 2


def test_prompts_of_several_lines_are_parted_by_dashes_and_keep_their_indentation(mos: Any) -> None:
    mos.post(reverse("data_prompt_add", args=["kite"]), {"text": "\n    Sing\n  a song\n--- \nDance\n"})
    assert sorted(prompt.text for prompt in Prompt.objects.all()) == ["    Sing\n  a song", "Dance"]


def add_prompts(client: Client, text: Any, **fields: Any) -> Any:
    data = {"text": text, "open_tasks": "on", **fields}
    return client.post(reverse("data_prompt_add", args=["kite"]), data, follow=True).content.decode()


def test_adding_a_prompt_again_does_not_ask_twice(mos: Any, project: Project) -> None:
    assert "Added 1 prompt. Annotators are asked to reply to 1 prompt." in add_prompts(mos, "Sing")
    assert "1 prompt was in the project already." in add_prompts(mos, "Sing")
    project.tasks.update(state=Task.State.FULL)
    add_prompts(mos, "Sing")
    assert project.tasks.count() == 1


def test_withdrawn_prompts_among_those_added_are_named_by_line_and_nothing_is_added(mos: Any, project: Project) -> None:
    gone = [factories.prompt(project, text, digest=digest_of(ask(text))) for text in ("Sing", "Hum")]
    withdraw_prompts(prompts=project.prompts.all())
    shown = add_prompts(mos, "Dance\n\nSing\nHum")
    assert "The prompts on lines 3, 4 were withdrawn from this project. Nothing has been added." in shown
    assert "Dance\n\nSing\nHum" in shown
    assert set(project.prompts.all()) == set(gone)
    assert not project.tasks.exists()

    assert "Added 1 prompt. Restored 2 prompts." in add_prompts(mos, "Dance\n\nSing\nHum", restore="on")
    assert project.prompts.filter(withdrawn_at=None).count() == project.tasks.count() == 3


def test_a_restored_prompt_comes_back_with_its_labels_and_tasks(mos: Any, project: Project, ann: User) -> None:
    asked = factories.task(project, overlap=2)
    factories.demonstration(project, ann, prompt=asked.prompt, state="accepted")
    mos.post(reverse("data_prompt_withdraw", args=["kite", asked.prompt.pk]))
    assert "1 label and 1 task" in " ".join(page(mos, "data_prompt", "kite", asked.prompt.pk).split())

    mos.post(reverse("data_prompt_restore", args=["kite", asked.prompt.pk]))
    asked.refresh_from_db()
    assert asked.state == Task.State.OPEN
    assert accepted_demonstrations(project).count() == 1
    assert "Restore" not in page(mos, "data_prompt", "kite", asked.prompt.pk)


def test_a_prompt_from_a_chat_stays_withdrawn(mos: Any, project: Project) -> None:
    gone = factories.prompt(project, source=Prompt.Source.CHAT)
    withdraw_prompts(prompts=project.prompts.all())
    assert "stays withdrawn" in page(mos, "data_prompt", "kite", gone.pk)
    assert mos.post(reverse("data_prompt_restore", args=["kite", gone.pk])).status_code == 409


def test_annotators_are_asked_about_one_prompt_or_about_a_filtered_list(mos: Any, project: Project) -> None:
    prompts = [factories.prompt(project, text) for text in ("Sing high", "Sing low", "Dance", "Hum")]
    factories.prompt(project, "Sing never", withdrawn_at=timezone.now())
    assert "Ask annotators to reply" in page(mos, "data_prompt", "kite", prompts[0].pk)
    for _ in range(2):
        mos.post(reverse("data_prompt_ask", args=["kite", prompts[0].pk]))
    assert project.tasks.count() == 1
    assert "Ask annotators to reply" not in page(mos, "data_prompt", "kite", prompts[0].pk)

    assert "1 of these prompts has no writing task yet." in " ".join(
        page(mos, "data_prompts", "kite", q="Sing").split()
    )
    answer = mos.post(reverse("data_prompts_ask", args=["kite"]), {"query": "q=Sing"})
    assert answer.url.endswith("?q=Sing")
    assert {task.prompt.text for task in project.tasks.all()} == {"Sing high", "Sing low"}


def test_a_withdrawn_label_is_exported_no_more(mos: Any, project: Project, ann: User) -> None:
    label = factories.demonstration(project, ann, "Because.", state=Demonstration.State.ACCEPTED)
    mos.post(reverse("data_label_withdraw", args=["kite", "demonstration", label.pk]))
    answer = mos.get(reverse("data_export", args=["kite", "demonstrations"]))
    assert b"".join(answer.streaming_content) == b""
