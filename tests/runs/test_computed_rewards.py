"""Computed rewards on the launch form."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from tests import factories
from webapp.accounts.models import Project, User
from webapp.errors import BadInput
from webapp.runs.models import Run
from webapp.runs.services import launch_run

pytestmark = pytest.mark.django_db


def launch_address(project: Project) -> str:
    return reverse("run_launch", args=[project.slug, "grpo"])


def test_the_form_offers_rewards_and_counts_prompts_without_a_reference(
    client: Client, mo: User, project: Project
) -> None:
    client.force_login(mo)
    factories.prompt(project, "What is 1+1?", reference="2")
    factories.prompt(project, "Why?")
    page = client.get(launch_address(project)).content.decode()
    assert "Numeric answer" in page
    assert "1 of 2 prompts to learn from have no reference" in page


def test_a_run_is_launched_with_rewards_and_copied_with_them(client: Client, mo: User, project: Project) -> None:
    client.force_login(mo)
    for number in range(3):
        factories.prompt(project, f"What is {number}+1?", reference=f"{number + 1}")
    base = factories.model_version(project)
    blank = client.get(launch_address(project)).context["form"]
    shown = {name: blank[name].value() for name in blank.fields}
    body = {name: value for name, value in shown.items() if value is not None and value is not False}
    body |= {"base": base.pk, "rewards.numeric.use": "on", "rewards.numeric.tolerance": "0.01"}
    body |= {"rewards.numeric.weight": "2"}
    answer = client.post(launch_address(project), body)
    assert answer.status_code == 302, answer.context["form"].errors
    run = Run.objects.get()
    (term,) = run.config["rewards"]
    assert (term["kind"], term["weight"], term["tolerance"]) == ("numeric", 2, 0.01)
    copied = client.get(launch_address(project), {"like": run.pk}).context["form"]
    assert copied["rewards.numeric.use"].value() is True
    assert copied["rewards.numeric.tolerance"].value() == 0.01
    assert not copied["rewards.exact.use"].value()


def test_a_parameter_that_makes_no_sense_is_refused(client: Client, mo: User, project: Project) -> None:
    client.force_login(mo)
    body = {"rewards.regex.use": "on", "rewards.regex.pattern": "("}
    answer = client.post(launch_address(project), body)
    assert answer.status_code == 400
    assert not Run.objects.exists()


def test_a_wrong_parameter_is_named_at_its_field(client: Client, mo: User, project: Project) -> None:
    client.force_login(mo)
    shown = filled_form(client, project)
    body = shown | {"rewards.exact.use": "on", "rewards.regex.use": "on", "rewards.regex.pattern": "("}
    form = client.post(launch_address(project), body).context["form"]
    assert "no regular expression" in form.errors["rewards.regex.pattern"][0]
    body = shown | {"rewards.length.use": "on", "rewards.length.minimum": "9", "rewards.length.maximum": "3"}
    form = client.post(launch_address(project), body).context["form"]
    assert "minimum must not be above maximum" in form.errors["rewards.length.use"][0]


def filled_form(client: Client, project: Project) -> dict[str, object]:
    blank = client.get(launch_address(project)).context["form"]
    shown = {name: blank[name].value() for name in blank.fields}
    return {name: value for name, value in shown.items() if value is not None and value is not False}


def test_a_run_may_have_several_rewards_of_one_kind(client: Client, mo: User, project: Project) -> None:
    client.force_login(mo)
    for number in range(3):
        factories.prompt(project, f"What is {number}+1?")
    base = factories.model_version(project)
    body = filled_form(client, project) | {"base": base.pk, "rewards.regex.use": "on", "rewards.regex.pattern": "a"}
    del body["rewards.exact.normalize"]
    part = f"{launch_address(project)}rewards/"
    page = client.post(part, body | {"another_reward": "regex"}).content.decode()
    assert 'name="rewards.regex~2.pattern"' in page
    assert 'name="rewards.regex.pattern" value="a"' in page  # as it was typed
    form = client.post(part, body | {"another_reward": "exact"}).context["form"]
    assert form["rewards.exact~2.use"].value() is True
    assert form["rewards.exact~2.normalize"].value() is True  # as always, while the first has it off
    assert form["rewards.exact.normalize"].value() is False
    body |= {"rewards.regex~2.use": "on", "rewards.regex~2.pattern": "b", "rewards.regex~2.weight": "-1"}
    assert client.post(launch_address(project), body).status_code == 302
    run = Run.objects.get()
    assert [(term["pattern"], term["weight"]) for term in run.config["rewards"]] == [("a", 1), ("b", -1)]
    copied = client.get(launch_address(project), {"like": run.pk}).context["form"]
    assert (copied["rewards.regex.pattern"].value(), copied["rewards.regex~2.pattern"].value()) == ("a", "b")
    assert copied["rewards.regex~2.use"].value() is True
    third = client.post(part, body | {"another_reward": "regex"}).context["form"]
    assert "rewards.regex~3.use" in third.fields


def test_a_run_without_any_score_is_refused(project: Project) -> None:
    factories.prompt(project, "What is 1+1?")
    base = factories.model_version(project)
    with pytest.raises(BadInput, match=r"Choose a reward model, .* or computed rewards"):
        launch_run(project=project, stage="grpo", by=project.created_by, base=base, freeze=["prompts"])
