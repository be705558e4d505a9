"""Two models are compared blind: a manager begins, people judge with keys and on a phone, the result has names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from annotations.models import Ranking
from tests import factories
from tests.browser.conftest import PHONE
from tests.comparisons.conftest import REPLIES, compared_run, comparison_of
from webapp.accounts.models import Project, User
from webapp.comparisons.models import Comparison, Pair


def test_two_models_are_compared_from_beginning_to_end(
    project: Project, mo: User, ann: User, open_page: Any, no_violations: Any, data_folders: Path
) -> None:
    run = compared_run(project, REPLIES[:2])
    manager = open_page(f"/runs/{run.pk}/", mo)
    manager.get_by_text("Have people compare its replies blind").click()
    no_violations(manager)
    manager.locator("[name=overlap]").fill("1")
    manager.get_by_role("button", name="Begin the comparison").click()
    expect(manager.locator("#comparison-status")).to_contain_text("0 of 2 judgments")
    no_violations(manager)
    comparison = Comparison.objects.get()

    person = open_page("/label/?project=kite", ann)
    expect(person.locator("#label-title")).to_have_text("Rank 2 replies")
    body = person.locator("#label-root")
    expect(body).not_to_contain_text("old")
    person.keyboard.press("1")
    person.keyboard.press("2")
    person.keyboard.press("Enter")
    expect(manager.locator("#comparison-status")).to_contain_text("1 of 2 judgments")
    first = Ranking.objects.get()
    assert first.groups == [[pk] for pk in first.order_shown]

    phone = open_page("/label/?project=kite", ann, viewport=PHONE, has_touch=True)
    expect(phone.locator("#label-title")).to_have_text("Rank 2 replies")
    for reply in phone.locator(".reply").all():
        reply.locator(".ranks label").first.tap()
    phone.get_by_role("button", name="Submit").tap()
    expect(phone.locator("#main")).to_contain_text("Nothing left to do")
    assert [len(ranking.groups) for ranking in Ranking.objects.order_by("pk")] == [2, 1]

    expect(manager.get_by_role("heading", name="Result")).to_be_visible()
    expect(manager.get_by_role("heading", name="Each pair")).to_be_visible()
    manager.locator("summary", has_text="Question").first.click()
    expect(manager.locator("pre").first).to_contain_text("A good answer")
    no_violations(manager)
    won = Pair.objects.get(task=first.task).reply_id == first.groups[0][0]
    expect(manager.locator("dl.facts")).to_contain_text("75.0" if won else "25.0")
    small = open_page(f"/comparisons/{comparison.pk}/", mo, viewport=PHONE)
    no_violations(small)
    assert small.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_form_and_the_list_hold_on_a_phone_and_in_the_dark(
    project: Project, mo: User, open_page: Any, no_violations: Any, data_folders: Path
) -> None:
    comparison_of(project)
    model = factories.model_version(project, name="newest", parent=project.models.get(name="new"))
    for options in ({"viewport": PHONE}, {"color_scheme": "dark"}):
        for address in (f"/models/{model.pk}/compare/", "/projects/kite/comparisons/"):
            page = open_page(address, mo, **options)
            no_violations(page)
            width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
            assert width[0] <= width[1]
