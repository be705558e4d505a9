"""The first hour of an installation, and an admin's day with a project."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from annotations.models import Task
from tests import factories
from tests.browser.conftest import PHONE
from webapp.accounts.models import Project, User

SHOTS = os.environ.get("SCREENSHOTS")
Open = Callable[..., Page]
Check = Callable[[Page], None]


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.wait_for_timeout(300)
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def sign_up(page: Page, name: str, email: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(factories.PASSWORD)


def test_the_first_hour_of_an_installation(open_page: Open, no_violations: Check) -> None:
    page = open_page("/")
    shot(page, "first-visit")
    no_violations(page)
    page.get_by_role("link", name="Create the first account").click()
    shot(page, "first-sign-up")
    no_violations(page)
    sign_up(page, "Rosa", "rosa@example.org")
    page.get_by_role("button", name="Create account").click()

    expect(page.get_by_role("heading", name="Welcome, Rosa")).to_be_visible()
    shot(page, "first-home")
    no_violations(page)
    page.get_by_role("link", name="New project").click()
    page.get_by_label("Name").fill("Museum guide")
    page.get_by_label("Description").fill("Answers visitors' questions about the collection.")
    no_violations(page)
    page.get_by_role("button", name="Create project").click()
    expect(page.get_by_role("heading", name="Museum guide")).to_be_visible()
    shot(page, "project")
    no_violations(page)

    page.get_by_role("link", name="Settings").click()
    shot(page, "project-settings")
    no_violations(page)
    page.get_by_label("Rankings per set of replies").fill("5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_label("Rankings per set of replies")).to_have_value("5")

    page.get_by_role("link", name="Guidelines").click()
    page.get_by_role("link", name="Edit").click()
    page.wait_for_url("**/edit/")
    page.get_by_label("Guidelines").fill("Name the **year** of every work.")
    expect(page.locator("#preview")).to_have_text("Name the year of every work.")
    shot(page, "guidelines-edit")
    no_violations(page)
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_text("Version 2 by Rosa")).to_be_visible()
    page.get_by_role("link", name="Version 1").click()
    expect(page.get_by_text("This is an old version.")).to_be_visible()
    shot(page, "guidelines")
    no_violations(page)

    page.get_by_role("link", name="Members").click()
    page.get_by_label("Tester").check()
    page.get_by_role("button", name="Make a link").click()
    link = page.locator("code").inner_text()
    shot(page, "members")
    no_violations(page)

    guest = open_page(link)
    shot(guest, "invitation")
    no_violations(guest)
    guest.get_by_role("link", name="Create an account").click()
    sign_up(guest, "Teo", "teo@example.org")
    guest.get_by_role("button", name="Create account and join").click()
    expect(guest.get_by_role("heading", name="Museum guide")).to_be_visible()
    expect(guest.get_by_text("All done")).to_be_visible()

    page.get_by_role("link", name="Members").click()
    expect(page.get_by_text("teo@example.org")).to_be_visible()
    page.get_by_label("Role of Teo").select_option("annotator")
    page.get_by_role("button", name="Set the role of Teo").click()
    expect(page.get_by_text("Teo is annotator now.")).to_be_visible()


@pytest.fixture
def busy(project: Project, ann: User, tess: User) -> Project:
    """A project that has been round the loop."""
    project.description = "Knows all about kites and the wind."
    project.save()
    for _ in range(3):
        factories.demonstration(project, ann)
        factories.ranking(project, ann)
        factories.task(project, Task.Kind.WRITE)
    factories.corpus(project)
    factories.snapshot(project)
    factories.run(project, "sft", state="succeeded")
    factories.run(project, "reward", state="running")
    factories.deployment(project, factories.model_version(project, name="sft 1"))
    factories.conversation(tess, project)
    return project


def test_the_loop_is_drawn_counted_and_walked(open_page: Open, busy: Project, ada: User, no_violations: Check) -> None:
    page = open_page("/", ada)
    shot(page, "home")
    no_violations(page)
    rankings = page.locator(".at-rankings")
    expect(rankings).to_contain_text("3")

    factories.ranking(busy, ada)
    expect(rankings).to_contain_text("4")  # by itself, within seconds

    for name in ("Prompts", "Demonstrations", "Rankings", "Snapshots", "Runs", "Models", "Live", "Chats", "Feedback"):
        page.goto("/")
        page.locator(".loop").get_by_role("link", name=re.compile(rf"\d\s*{name}\b")).click()
        expect(page.locator("main h1").first).to_be_visible()
    page.goto("/projects/kite/")
    expect(page.locator(".loop")).to_be_visible()
    shot(page, "project-busy")
    no_violations(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_home_on_a_phone(open_page: Open, busy: Project, ann: User, no_violations: Check, scheme: str) -> None:
    page = open_page("/", ann, viewport=PHONE, color_scheme=scheme)
    expect(page.get_by_role("link", name="Start labeling")).to_be_visible()
    shot(page, f"phone-home-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    no_violations(page)


@pytest.mark.parametrize(
    "path",
    ["/projects/", "/projects/kite/", "/projects/kite/members/", "/projects/kite/settings/",
     "/projects/kite/guidelines/", "/profile/", "/accounts/2fa/", "/accounts/email/", "/accounts/password/change/",
     "/chat/data/"],
)  # fmt: skip
def test_pages_of_a_project_fit_a_phone_in_the_dark(
    open_page: Open, busy: Project, ada: User, no_violations: Check, path: str
) -> None:
    page = open_page(path, ada, viewport=PHONE, color_scheme="dark")
    shot(page, "phone-dark" + path.replace("/", "-"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    no_violations(page)


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, {"width": 390, "height": 844}])
def test_a_long_name_pushes_nothing_out_of_the_page(
    open_page: Open, busy: Project, ada: User, no_violations: Check, viewport: dict[str, int]
) -> None:
    Project.objects.filter(pk=busy.pk).update(name="Kiteflyingassistant" * 5)
    page = open_page("/", ada, viewport=viewport)
    for path in ("/", "/projects/", "/projects/kite/", "/projects/kite/members/", "/projects/kite/guidelines/edit/"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], path
        nav = page.get_by_role("navigation", name="Main").bounding_box()
        assert nav is not None
        assert nav["x"] + nav["width"] <= viewport["width"], path
    page.get_by_label("Projects and account").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    no_violations(page)


@pytest.mark.parametrize(
    ("path", "tab"),
    [("/projects/kite/members/", "Project"), ("/projects/kite/guidelines/", "Project"),
     ("/projects/kite/settings/", "Project"), ("/projects/kite/", "Project"),
     ("/projects/kite/deployments/", "Models"), ("/projects/kite/withdrawn-data/", "Models"),
     ("/projects/kite/data/snapshots/", "Data"), ("/label/", "Label")],
)  # fmt: skip
def test_the_navigation_shows_where_one_is_also_on_a_phone(
    open_page: Open, busy: Project, ada: User, path: str, tab: str
) -> None:
    page = open_page(path, ada, viewport={"width": 320, "height": 640})
    current = page.get_by_role("navigation", name="Main").locator("[aria-current]")
    expect(current).to_have_text(tab)
    expect(current).to_be_in_viewport(ratio=0.99)
    is_this_page = current.get_attribute("href") == path
    expect(current).to_have_attribute("aria-current", "page" if is_this_page else "true")


def test_deployments_and_withdrawn_data_are_tabs_beside_the_models(
    open_page: Open, busy: Project, ada: User, no_violations: Check
) -> None:
    page = open_page("/projects/kite/models/", ada)
    tabs = page.get_by_role("navigation", name="Models")
    for name in ("Deployments", "Withdrawn data", "Models"):
        tabs.get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(tabs.locator("[aria-current=page]")).to_have_text(name)
        no_violations(page)


def test_a_profile_with_tokens_and_two_factors(
    open_page: Open, project: Project, ada: User, no_violations: Check
) -> None:
    page = open_page("/profile/", ada)
    page.get_by_label("What for").fill("Nightly export")
    page.get_by_label("Take tasks and hand in labels").check()
    page.get_by_role("button", name="Make token").click()
    page.get_by_label("Password").fill(factories.PASSWORD)  # this browser's session began without one
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text("It is shown only now.")).to_be_visible()
    expect(page.get_by_role("cell", name="Nightly export").first).to_be_visible()
    expect(page.get_by_role("cell", name="read, label")).to_be_visible()
    shot(page, "profile-token")
    no_violations(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("The token does not work anymore.")).to_be_visible()
    page.get_by_label("Your name").fill("Ada L.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Ada L.")).to_be_visible()

    page.get_by_role("link", name="Manage").click()
    no_violations(page)
    shot(page, "two-factors")


def test_a_page_that_is_not_there_leads_home(open_page: Open, project: Project, stranger: User) -> None:
    page = open_page("/projects/kite/", stranger)
    shot(page, "not-here")
    expect(page.get_by_text("a project you are not a member of")).to_be_visible()
    page.get_by_role("link", name="Home").click()
    expect(page.get_by_text("Ask a manager for an invitation link")).to_be_visible()


def test_a_small_real_model_says_what_it_takes(open_page: Open, no_violations: Check, root: User) -> None:
    page = open_page("/", root)
    page.get_by_role("link", name="Try it with a small real model").press("Enter")
    expect(page.get_by_text("270 MB from huggingface.co")).to_be_visible()
    no_violations(page)
    phone = open_page("/small-model/", root, viewport=PHONE)
    no_violations(phone)
    shot(phone, "small-model-phone")
    page.get_by_role("button", name="Create the project and add the model").click()
    expect(page.get_by_role("heading", name="SmolLM2 135M Instruct")).to_be_visible()
