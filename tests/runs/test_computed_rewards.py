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


def test_a_run_without_any_score_is_refused(project: Project) -> None:
    factories.prompt(project, "What is 1+1?")
    base = factories.model_version(project)
    with pytest.raises(BadInput, match=r"Choose a reward model, .* or computed rewards"):
        launch_run(project=project, stage="grpo", by=project.created_by, base=base, freeze=["prompts"])
