"""The pages of judges, at a desk and on a phone: whole, reachable and without violations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from annotations.models import Task
from tests import factories
from tests.browser.conftest import DESKTOP, PHONE
from tests.judges.conftest import by_length, endpoint_of, evaluate_run, judge_at  # noqa: F401 (fixtures)
from tests.judges.fake import FakeEndpoint
from tests.judges.test_jobs import PAIRS, finish
from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot
from webapp.judges.models import Judge, JudgeJob
from webapp.judges.services import start_agreement, start_comparison


@pytest.fixture
def judged(
    project: Project,
    mo: User,
    ann: User,
    by_length: FakeEndpoint,  # noqa: F811
    data_folders: Path,
) -> tuple[Judge, JudgeJob, JudgeJob]:
    """A judge whose agreement was measured, and which has compared two models."""
    for _ in range(2):
        factories.ranking(project, ann, task=factories.task(project, Task.Kind.RANK, replies=2))
    judge = judge_at(by_length, project, price_in=1.0, price_out=10.0, spending_limit=5.0)
    agreement = finish(start_agreement(judge=judge, by=mo, size=10))
    run = evaluate_run(project, PAIRS, base=factories.model_version(project))
    return judge, agreement, finish(start_comparison(judge=judge, by=mo, run=run))


def check(page: Page, no_violations: Any, width: int) -> None:
    no_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_pages_of_judges_hold(
    project: Project, mo: User, judged: Any, open_page: Any, no_violations: Any, viewport: dict[str, int]
) -> None:
    judge, agreement, comparison = judged
    for address, heading in (
        ("/projects/kite/judges/", "Models"),
        ("/projects/kite/judges/add/", "Add a judge"),
        (f"/judges/{judge.pk}/edit/", "Edit Big judge"),
        (f"/judges/{judge.pk}/", "Big judge"),
        (f"/judge-jobs/{agreement.pk}/", "Agreement with people"),
        (f"/judge-jobs/{comparison.pk}/", "Comparison of two models"),
    ):
        page = open_page(address, mo, viewport=viewport)
        expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible()
        check(page, no_violations, viewport["width"])
    page.locator("summary").filter(has_text="Question").first.click()
    expect(page.locator("pre").first).to_be_visible()
    check(page, no_violations, viewport["width"])


def test_a_job_is_watched_stopped_and_seen_to_its_result(
    project: Project, mo: User, ann: User, judged: Any, open_page: Any, no_violations: Any
) -> None:
    judge = judged[0]
    factories.ranking(project, ann, task=factories.task(project, Task.Kind.RANK, replies=2))
    job = start_agreement(judge=judge, by=mo, size=10)
    page = open_page(f"/judge-jobs/{job.pk}/", mo)
    expect(page.locator("#judge-status")).to_contain_text("Waiting for a worker")
    no_violations(page)
    page.get_by_role("button", name="Stop").click()
    finish(job)
    page.get_by_role("button", name="Continue").click()
    finish(job)
    expect(page.get_by_role("heading", name="Agreement with people", level=1)).to_be_visible()
    expect(page.get_by_role("heading", name="Agreement with people", level=2)).to_be_visible()
    no_violations(page)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_rewards_are_put_together_on_the_launch_form(
    project: Project, mo: User, judged: Any, open_page: Any, no_violations: Any, viewport: dict[str, int]
) -> None:
    factories.snapshot(project, Snapshot.Kind.PROMPTS)
    page = open_page("/projects/kite/runs/launch/grpo/", mo, viewport=viewport)
    rewards = page.locator("#rewards")
    rewards.locator("summary", has_text="Judge: Big judge").click()
    rewards.get_by_label("Judge: Big judge").check()
    expect(page.get_by_text("12,800 calls")).to_be_visible()
    expect(page.locator(".launch-bar")).to_contain_text("of its limit is left")
    rewards.locator("summary", has_text="Regular expression").click()
    rewards.locator("[name='rewards.regex.pattern']").fill("^a")
    rewards.locator("details[open]", has_text="Regular expression").get_by_role(
        "button", name="Add another of this kind"
    ).click()
    expect(page.locator("[name='rewards.regex~2.pattern']")).to_be_visible()
    expect(page.locator("[name='rewards.regex.pattern']")).to_have_value("^a")
    expect(page.get_by_label("Judge: Big judge")).to_be_checked()
    check(page, no_violations, viewport["width"])
