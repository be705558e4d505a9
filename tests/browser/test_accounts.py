"""Coming in: by invitation, with an account or without one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from annotations.models import Prompt
from annotations.services.prompts import add_prompt, withdraw_prompts
from tests import factories
from tests.browser.conftest import PHONE
from webapp.accounts import memberships
from webapp.accounts.models import Project, Role, User

Open = Callable[..., Page]
Check = Callable[[Page], None]


def link_to(project: Project, by: User, email: str = "", role: Role = Role.ANNOTATOR) -> str:
    return f"/invitations/{memberships.invite(project=project, role=role, by=by, email=email)[1]}/"


def sign_in(page: Page, user: User) -> None:
    page.get_by_label("Email").fill(user.email)
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def test_somebody_signed_in_joins_a_second_project(
    open_page: Open, project: Project, ada: User, stranger: User, no_violations: Check
) -> None:
    factories.member(factories.project(name="Boat", slug="boat"), stranger)
    page = open_page(link_to(project, ada), stranger)
    no_violations(page)
    page.get_by_role("button", name="Join as Stranger").click()
    expect(page.get_by_text("Welcome to Kite. Your role here is annotator.")).to_be_visible()
    page.get_by_label("Projects and account").click()
    expect(page.get_by_role("link", name="Boat")).to_be_visible()


def test_somebody_with_an_account_signs_in_on_the_way_and_joins(
    open_page: Open, root: User, project: Project, ada: User, stranger: User
) -> None:
    page = open_page(link_to(project, ada))
    page.get_by_role("link", name="Sign in to an account you have").click()
    sign_in(page, stranger)
    page.get_by_role("button", name="Join as Stranger").click()
    expect(page.get_by_role("heading", name="Kite")).to_be_visible()
    assert project.memberships.filter(user=stranger).exists()


def test_a_person_without_an_account_signs_up_with_the_address_of_the_link(
    open_page: Open, root: User, project: Project, ada: User, no_violations: Check
) -> None:
    page = open_page(link_to(project, ada, email="nia@example.org"))
    page.get_by_role("link", name="Create an account").click()
    expect(page.get_by_label("Email")).to_have_value("nia@example.org")
    no_violations(page)
    page.get_by_label("Your name").fill("Nia")
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Create account and join").click()
    expect(page.get_by_role("heading", name="Kite")).to_be_visible()
    assert project.memberships.filter(user__email="nia@example.org").exists()


def test_somebody_who_forgot_that_they_have_an_account_turns_from_sign_up_to_sign_in_and_joins(
    open_page: Open, root: User, project: Project, ada: User, stranger: User
) -> None:
    page = open_page(link_to(project, ada))
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("Email").fill(stranger.email)
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Create account and join").click()
    expect(page.get_by_text("already registered")).to_be_visible()
    page.locator("main").get_by_role("link", name="Sign in").click()
    sign_in(page, stranger)
    page.get_by_role("button", name="Join as Stranger").click()
    expect(page.get_by_role("heading", name="Kite")).to_be_visible()


def test_a_removed_member_is_invited_again(open_page: Open, project: Project, ada: User, ann: User) -> None:
    memberships.remove_member(project=project, user_id=ann.pk, by=ada)
    page = open_page(link_to(project, ada, role=Role.TESTER), ann)
    page.get_by_role("button", name="Join as Ann").click()
    expect(page.get_by_text("Your role here is tester.")).to_be_visible()


def test_a_stale_page_is_told_apart_in_the_sites_own_style(
    open_page: Open, project: Project, ada: User, no_violations: Check
) -> None:
    page = open_page("/profile/", ada)
    page.context.clear_cookies(name="csrftoken")
    page.get_by_role("button", name="Save").first.click()
    expect(page.get_by_role("heading", name="This page is out of date")).to_be_visible()
    expect(page.get_by_role("link", name="Data")).to_be_visible()
    no_violations(page)


def test_times_are_those_of_the_persons_own_clock(
    open_page: Open, root: User, project: Project, ada: User, no_violations: Check
) -> None:
    project.guidelines.update(created_at=datetime(2026, 11, 25, 23, 31, tzinfo=UTC))
    page = open_page("/accounts/login/", timezone_id="Asia/Tokyo")
    sign_in(page, ada)
    page.goto("/projects/kite/guidelines/")
    expect(page.get_by_text("26 November 2026, 08:31")).to_be_visible()

    page.goto("/profile/")
    expect(page.get_by_label("Time zone")).to_contain_text("Same as this device (Asia/Tokyo)")
    page.get_by_label("Time zone").select_option("Europe/Berlin")
    page.get_by_role("button", name="Save").first.click()
    no_violations(page)
    page.goto("/projects/kite/guidelines/")
    expect(page.get_by_text("26 November 2026, 00:31")).to_be_visible()


def test_two_people_who_edit_the_guidelines_lose_nothing(
    open_page: Open, project: Project, ada: User, mo: User, no_violations: Check
) -> None:
    pages = {user: open_page("/projects/kite/guidelines/edit/", user) for user in (ada, mo)}
    for user, text in ((ada, "Name the year."), (mo, "Name the painter.")):
        pages[user].get_by_label("Guidelines", exact=True).fill(text)
        pages[user].get_by_role("button", name="Save as version 2").click()
    expect(pages[ada].get_by_text("Version 2 by Ada")).to_be_visible()

    page = pages[mo]
    expect(page.get_by_role("heading", name="Somebody else has saved changes")).to_be_visible()
    expect(page.locator(".diff del")).to_contain_text("Name the year.")
    expect(page.get_by_label("Guidelines", exact=True)).to_have_value("Name the painter.")
    no_violations(page)
    page.get_by_label("Guidelines", exact=True).fill("Name the year and the painter.")
    page.get_by_role("button", name="Save as version 3").click()
    expect(page.get_by_text("Version 3 by Mo")).to_be_visible()


def test_two_people_who_change_one_setting_are_told(
    open_page: Open, project: Project, ada: User, mo: User, no_violations: Check
) -> None:
    pages = {user: open_page("/projects/kite/settings/", user, viewport=PHONE) for user in (ada, mo)}
    pages[ada].get_by_label("Longest reply").fill("99")
    for user, text in ((ada, "You know\nkites."), (mo, "You know\nboats.")):
        pages[user].get_by_label("System prompt").fill(text)
        pages[user].get_by_role("button", name="Save").click()
    expect(pages[ada].get_by_text("Saved.")).to_be_visible()

    page = pages[mo]
    expect(page.get_by_role("heading", name="Somebody else has saved changes")).to_be_visible()
    expect(page.get_by_label("Longest reply")).to_have_value("99")
    no_violations(page)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_label("System prompt")).to_have_value("You know\nboats.")


def test_a_sign_in_in_a_window_of_its_own_leads_back_to_the_other(
    open_page: Open, root: User, project: Project, ann: User, no_violations: Check
) -> None:
    factories.task(project)
    page = open_page("/label/", ann)
    other = open_page(page.locator("[data-login]").get_attribute("data-login"))
    sign_in(other, ann)
    expect(other.get_by_text("Go back to the window where you were working")).to_be_visible()
    no_violations(other)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_people_passwords_and_prompts_are_accessible_and_fit_a_phone(
    open_page: Open, root: User, project: Project, ada: User, ann: User, no_violations: Check, scheme: str
) -> None:
    asked = factories.task(project).prompt
    factories.demonstration(project, ann, prompt=asked)
    gone = add_prompt(project=project, messages=[{"role": "user", "content": "Sing"}], source=Prompt.Source.WRITTEN)
    withdraw_prompts(prompts=Prompt.objects.filter(pk=gone.pk))
    unasked = factories.prompt(project)

    def check(page: Page) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], page.url
        no_violations(page)

    page = open_page("/people/", root, viewport=PHONE, color_scheme=scheme)
    page.get_by_role("button", name="Reset password of Ann").click()
    expect(page.get_by_role("heading", name="Send this link to Ann")).to_be_visible()
    check(page)
    link = page.locator("code").inner_text()
    for prompt in (asked, gone, unasked):
        page.goto(f"/projects/kite/data/prompts/{prompt.pk}/")
        check(page)
    page.goto("/projects/kite/data/prompts/")
    expect(page.get_by_role("button", name="Ask annotators to reply")).to_be_visible()
    check(page)
    page.goto("/projects/kite/data/prompts/add/")
    page.get_by_label("Prompts").fill("Dance\nSing")
    page.get_by_role("button", name="Add prompts").click()
    expect(page.get_by_text("The prompt on line 2 was withdrawn")).to_be_visible()
    expect(page.get_by_label("Prompts", exact=True)).to_have_value("Dance\nSing")
    check(page)
    page.get_by_label("Restore the withdrawn prompts").check()
    page.get_by_role("button", name="Add prompts").click()
    expect(page.get_by_text("Restored 1 prompt.")).to_be_visible()

    nobody = open_page(link, viewport=PHONE, color_scheme=scheme)
    check(nobody)
    for field in nobody.locator("input[type=password]").all():
        field.fill("another battery staple")
    nobody.get_by_role("button", name="Save the new password").click()
    expect(nobody.get_by_role("heading", name="Your password is changed")).to_be_visible()
    check(nobody)
    nobody.locator("main").get_by_role("link", name="Sign in").click()
    nobody.get_by_role("link", name="Forgot your password?").click()
    expect(nobody.get_by_text("This installation does not send email")).to_be_visible()
    check(nobody)
