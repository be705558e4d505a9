"""Pages whose scripts do not all arrive: the person is told before they type, and forms work all the same."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from annotations.models import Demonstration
from tests import factories
from tests.browser.scripted import Script
from webapp.accounts.models import Project, User
from webapp.chat.models import Message

Open = Callable[..., Page]
Check = Callable[[Page], None]
FINISH_ANIMATIONS = "document.getAnimations().forEach((animation) => animation.finish())"  # rather than wait for them


def script(name: str) -> re.Pattern[str]:
    """The address of one script, whether or not it carries a hash."""
    return re.compile(rf"/{re.escape(name)}(\.[0-9a-f]+)?\.js$")


def page_without(page: Page, name: str, path: str) -> Page:
    """Another page of the same person that one script does not reach. What breaks in it fails no test."""
    other = page.context.new_page()
    other.route(script(name), lambda route: route.abort())
    other.goto(path)
    return other


@pytest.fixture
def one_task(transactional_db: None, project: Project, ann: User) -> Project:
    factories.task(project, prompt=factories.prompt(project, "Why does a kite fly?"))
    return project


@pytest.mark.parametrize("name", ["htmx-2.min", "site", "label", "label-send", "label-drafts"])
def test_a_labeling_page_without_one_of_its_scripts_says_so_at_once(
    open_page: Open, one_task: Project, ann: User, name: str
) -> None:
    page = page_without(open_page("/projects/", ann), name, "/label/")
    notice = page.get_by_role("alert").filter(has_text="This page did not load completely. Reload it before you type.")
    expect(notice).to_be_in_viewport(ratio=1)
    page.unroute_all()
    page.reload()
    expect(page.locator("#load-notice")).to_have_count(0)


@pytest.mark.parametrize("name", ["theme", "loaded"])
def test_a_page_without_the_scripts_that_watch_the_others_says_so_in_a_while(
    open_page: Open, one_task: Project, ann: User, name: str
) -> None:
    page = page_without(open_page("/projects/", ann), name, "/label/")
    page.evaluate(FINISH_ANIMATIONS)
    expect(page.locator("#load-notice")).to_be_in_viewport(ratio=1)


def test_a_script_that_never_comes_is_told_of(open_page: Open, one_task: Project, ann: User) -> None:
    page = open_page("/projects/", ann).context.new_page()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(script("label-drafts"), hold)
    page.goto("/label/", wait_until="commit")
    expect(page.locator("#load-notice")).to_be_attached()
    page.evaluate(FINISH_ANIMATIONS)
    expect(page.locator("#load-notice")).to_be_in_viewport(ratio=1)
    held[0].continue_()
    expect(page.locator("#load-notice")).to_have_count(0)  # it came late


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_notice_is_accessible_and_fits_a_phone(
    open_page: Open, one_task: Project, ann: User, no_violations: Check, scheme: str
) -> None:
    page = open_page("/projects/", ann, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = page_without(page, "label-drafts", "/label/")
    expect(page.locator("#load-notice")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    no_violations(page)


def test_a_browser_without_scripts_is_not_told_to_reload(open_page: Open, one_task: Project, ann: User) -> None:
    page = open_page("/label/", ann, java_script_enabled=False)
    page.evaluate(FINISH_ANIMATIONS)
    expect(page.locator("#load-notice")).to_be_hidden()
    page.locator("#id_text").fill("Because the wind lifts it.")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".label-saved")).to_be_visible()


def test_an_answer_is_sent_without_htmx_too(open_page: Open, one_task: Project, ann: User) -> None:
    page = page_without(open_page("/projects/", ann), "htmx-2.min", "/label/")
    page.locator("#id_text").fill("Because the wind lifts it.")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".label-saved")).to_be_visible()
    assert Demonstration.objects.get(author=ann).response.text == "Because the wind lifts it."


@pytest.mark.parametrize("name", ["htmx-2.min", "chat-drafts", "chat-stream", "chat"])
def test_a_chat_without_one_of_its_scripts_says_so(open_page: Open, model: Script, tess: User, name: str) -> None:
    page = page_without(open_page("/projects/", tess), name, "/chat/?project=kite")
    expect(page.locator("#load-notice")).to_be_in_viewport(ratio=1)


def test_a_message_sent_without_htmx_counts_once_and_leaves_the_field(
    open_page: Open, project: Project, model: Script, tess: User
) -> None:
    talk = factories.conversation(tess, project)
    page = page_without(open_page("/projects/", tess), "htmx-2.min", f"/chat/{talk.pk}/")
    page.get_by_label("Message", exact=True).fill("What is a kite?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".bubble")).to_have_text("What is a kite?")
    page.reload()  # and its scripts have run
    expect(page.get_by_label("Message", exact=True)).to_have_value("")
    assert Message.objects.filter(role="user").count() == 1
