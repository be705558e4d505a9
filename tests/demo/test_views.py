"""The sample project's page and its buttons."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from tests.demo.test_report import REPORT
from webapp.accounts.models import Project, User
from webapp.demo import services
from webapp.demo.models import Demo
from webapp.demo.people import USER, sample_user
from webapp.demo.steps import STEPS

pytestmark = pytest.mark.django_db


@pytest.fixture
def demo() -> Demo:
    return services.start_demo(seed=1, size="quick")


@pytest.fixture
def as_root(client: Client, root: User) -> Client:
    client.force_login(root)
    return client


def page(demo: Demo) -> str:
    return reverse("demo_report", args=[demo.project.slug])


def test_the_button_starts_a_sample_project(as_root: Client) -> None:
    answer = as_root.post(reverse("demo_start"))
    demo = Demo.objects.get()
    assert answer.headers["Location"] == page(demo)
    assert demo.state == Demo.State.RUNNING


def test_only_who_runs_the_installation_starts_one(client: Client, ada: User) -> None:
    client.force_login(ada)
    assert client.post(reverse("demo_start")).status_code == 403
    assert not Demo.objects.exists()


def test_the_page_shows_how_far_it_is(as_root: Client, demo: Demo) -> None:
    Demo.objects.update(step=4, note="Sample base: training", share=0.5, began={"people": 1.0}, ended={"people": 3.0})
    shown = as_root.get(page(demo)).content.decode()
    assert "A base model reads the text" in shown
    assert "Sample base: training" in shown
    assert 'aria-current="step"' in shown


def test_the_renewal_is_the_part_alone(as_root: Client, demo: Demo) -> None:
    shown = as_root.get(page(demo), headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in shown
    assert "demo-steps" in shown


def test_a_failure_says_why_and_offers_to_go_on(as_root: Client, demo: Demo) -> None:
    Demo.objects.update(state=Demo.State.FAILED, error="Sample PPO (failed): The disk is full.")
    assert "The disk is full." in as_root.get(page(demo)).content.decode()
    as_root.post(reverse("demo_again", args=[demo.project.slug]))
    demo.refresh_from_db()
    assert demo.state == Demo.State.RUNNING


def test_the_report_has_its_figures_and_samples(as_root: Client, demo: Demo) -> None:
    Demo.objects.update(state=Demo.State.DONE, step=len(STEPS), report=REPORT)
    shown = as_root.get(page(demo)).content.decode()
    assert "75\N{NO-BREAK SPACE}%" in shown
    assert "- apple\n- pear\n- plum" in shown


def test_the_sample_people_get_passwords_that_are_shown_once(as_root: Client, demo: Demo) -> None:
    answer = as_root.post(reverse("demo_logins", args=[demo.project.slug]), follow=True)
    assert "user@sample.example, password" in answer.content.decode()
    assert sample_user(USER).has_usable_password()
    assert "user@sample.example, password" not in as_root.get(page(demo)).content.decode()


def test_a_tester_does_not_see_the_report(client: Client, demo: Demo) -> None:
    services.take_turn(demo_id=demo.pk, seconds=0.001)
    client.force_login(sample_user(USER))
    assert client.get(page(demo)).status_code == 403


def test_a_project_of_ones_own_has_no_report(as_root: Client, project: Project) -> None:
    assert as_root.get(reverse("demo_report", args=[project.slug])).status_code == 404
