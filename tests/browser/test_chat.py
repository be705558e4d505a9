"""An end user's day: ask, read, judge, and keep control of what was said."""

from __future__ import annotations

import os
import queue
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from annotations.models import Demonstration, Ranking
from tests.browser.conftest import PHONE
from tests.browser.scripted import Script
from webapp.accounts.models import User
from webapp.chat.models import Message

SHOTS = os.environ.get("SCREENSHOTS")
POEM = "**Kites** fly\n\n1. high\n2. *far*\n\n```\nwind = 12\n```\nand come back."


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.wait_for_timeout(300)
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def at_end(page: Page) -> bool:
    return page.evaluate("window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 150")


def until(page: Page, true: Callable[[], bool]) -> None:
    for _ in range(100):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not come about within five seconds")


def test_a_question_is_answered_as_it_is_written(
    open_page: Callable[..., Page], model: Script, tess: User, no_violations: Callable[[Page], None]
) -> None:
    model.pieces = queue.Queue()
    page = open_page("/chat/?project=kite", tess)
    no_violations(page)
    shot(page, "chat-empty")
    ask(page, "How do kites fly?")
    page.wait_for_url("**/chat/*-*/")
    expect(page.get_by_text("Thinking")).to_be_visible()

    model.pieces.put("**Kites** fly")
    expect(page.locator(".streaming")).to_have_text("**Kites** fly")
    model.pieces.put(" high.")
    expect(page.locator(".streaming")).to_have_text("**Kites** fly high.")
    shot(page, "chat-streaming")
    no_violations(page)
    model.pieces.put("")

    expect(page.locator(".message.assistant strong")).to_have_text("Kites")
    expect(page.get_by_role("button", name="Good reply")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_value("")
    expect(page.locator("#chat-status")).to_have_text("The reply: Kites fly high.")
    no_violations(page)


def test_reload_and_a_second_tab_go_on_with_the_reply(
    open_page: Callable[..., Page], model: Script, tess: User
) -> None:
    model.pieces = queue.Queue()
    page = open_page("/chat/?project=kite", tess)
    ask(page, "Count.")
    page.wait_for_url("**/chat/*-*/")
    model.pieces.put("one")
    expect(page.locator(".streaming")).to_have_text("one")

    page.reload()
    expect(page.locator(".streaming")).to_have_text("one")
    tab = page.context.new_page()
    tab.goto(page.url)
    model.pieces.put(" two")
    expect(page.locator(".streaming")).to_have_text("one two")
    expect(tab.locator(".streaming")).to_have_text("one two")

    page.context.set_offline(True)
    page.wait_for_timeout(200)
    page.context.set_offline(False)
    model.pieces.put(" three")
    model.pieces.put("")
    expect(page.locator(".message.assistant > .prose")).to_have_text("one two three")
    expect(tab.locator(".message.assistant > .prose")).to_have_text("one two three")
    assert len(model.asked) == 1


def test_escape_stops_and_what_had_come_stays(open_page: Callable[..., Page], model: Script, tess: User) -> None:
    model.pieces = queue.Queue()
    page = open_page("/chat/?project=kite", tess)
    ask(page, "Go on for ever.")
    page.wait_for_url("**/chat/*-*/")
    model.pieces.put("On and on")
    expect(page.locator(".streaming")).to_have_text("On and on")

    page.keyboard.press("Escape")

    expect(page.get_by_text("You stopped this reply.")).to_be_visible()
    expect(page.locator(".message.assistant > .prose")).to_have_text("On and on")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_a_day_of_an_end_user(
    open_page: Callable[..., Page], model: Script, tess: User, no_violations: Callable[[Page], None]
) -> None:
    for text in (POEM, "Second try.", "About weather.", "Better weather."):
        model.replies.put(text)
    page = open_page("/chat/?project=kite", tess)
    ask(page, "How do kites fly?")
    expect(page.locator(".prose li")).to_have_count(2)
    shot(page, "chat-answered")

    page.get_by_role("button", name="Another reply").click()
    expect(page.locator(".message.assistant > .prose")).to_have_text("Second try.")
    expect(page.locator(".branches")).to_contain_text(re.compile("2.*2"))
    page.get_by_text("Which is better, this reply or reply 1?").click()
    shot(page, "chat-compare")
    no_violations(page)
    page.locator(".pair section").nth(1).get_by_role("button", name="This one is better").click()
    expect(page.get_by_text("You prefer this reply to reply 2")).to_be_visible()
    assert not Ranking.objects.exists()  # she has not allowed it yet

    page.get_by_role("button", name="Bad reply").click()
    expect(page.get_by_label("Wrong or made up")).to_be_visible()
    page.get_by_label("Too long").check()
    page.get_by_label("Comment").fill("Simply say it.")
    page.get_by_label("A better answer").fill("Because of the wind.")
    page.get_by_label("may read the conversations").check()
    shot(page, "chat-feedback")
    no_violations(page)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("waiting for review")).to_be_visible()
    assert Demonstration.objects.get().response.text == "Because of the wind."
    assert Ranking.objects.get().retracted_at is None

    page.get_by_label("Edit", exact=True).click()
    page.get_by_label("Edit your message").fill("What about the weather?")
    page.get_by_role("button", name="Send as a new branch").click()
    expect(page.locator(".message.assistant > .prose")).to_have_text("About weather.")
    page.get_by_role("button", name="Previous version").first.click()
    expect(page.locator(".bubble")).to_have_text("How do kites fly?")

    page.get_by_label("This conversation").click()
    page.get_by_label("Name").fill("Kites and wind")
    page.get_by_role("button", name="Rename").click()
    expect(page.locator(".chat-list a[aria-current=page]")).to_have_text("Kites and wind")
    page.get_by_label("This conversation").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("was deleted. You can restore it")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name="Kites and wind")).to_be_visible()

    page.get_by_role("link", name="Your data").click()
    shot(page, "chat-data")
    no_violations(page)
    page.get_by_role("button", name="Withdraw consent").click()
    expect(page.get_by_text("no longer learns from your feedback")).to_be_visible()
    assert not Demonstration.objects.filter(retracted_at=None).exists()


def test_a_draft_survives_and_goes_only_once_it_is_sent(
    open_page: Callable[..., Page], model: Script, tess: User
) -> None:
    page = open_page("/chat/?project=kite", tess)
    page.get_by_label("Message", exact=True).fill("Half a thou")
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Half a thou")

    ask(page, "Half a thought.")
    expect(page.locator(".message.assistant > .prose")).to_have_text("I do not know.")
    ask(page, "And the rest.")
    expect(page.locator(".message.user")).to_have_count(2)
    expect(page.get_by_label("Message", exact=True)).to_have_value("")
    page.goto("/chat/?project=kite")
    expect(page.get_by_label("Message", exact=True)).to_have_value("")


def test_a_model_server_that_is_down_leaves_a_retry(
    open_page: Callable[..., Page], model: Script, tess: User, settings: Any
) -> None:
    settings.MODEL_SERVER_URL, up = "http://127.0.0.1:9", settings.MODEL_SERVER_URL
    page = open_page("/chat/?project=kite", tess)
    ask(page, "Anybody there?")
    expect(page.locator(".message.assistant [role=alert]")).to_contain_text("not available right now")
    shot(page, "chat-down")

    settings.MODEL_SERVER_URL = up
    model.replies.put("Here I am.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".message.assistant > .prose")).to_have_text("Here I am.")
    expect(page.locator(".branches")).to_have_count(0)


def test_a_reply_of_nothing_says_so_and_offers_another(
    open_page: Callable[..., Page], model: Script, tess: User
) -> None:
    model.replies.put("")
    page = open_page("/chat/?project=kite", tess)
    ask(page, "Say nothing.")

    expect(page.locator(".message.assistant [role=alert]")).to_contain_text("empty reply")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".message.assistant > .prose")).to_have_text("I do not know.")


def test_the_view_follows_the_reply_until_its_reader_scrolls_away(
    open_page: Callable[..., Page], model: Script, tess: User
) -> None:
    model.pieces = queue.Queue()
    page = open_page("/chat/?project=kite", tess)
    ask(page, "A long one.")
    page.wait_for_url("**/chat/*-*/")
    model.pieces.put("line\n" * 80)
    expect(page.locator(".streaming")).to_contain_text("line")
    until(page, lambda: at_end(page))

    page.mouse.move(400, 300)
    page.mouse.wheel(0, -900)
    until(page, lambda: not at_end(page))
    before = page.evaluate("window.scrollY")
    model.pieces.put("more\n" * 40)
    expect(page.locator(".streaming")).to_contain_text("more")
    assert abs(page.evaluate("window.scrollY") - before) < 5
    page.get_by_role("button", name="Newest").click()
    until(page, lambda: at_end(page))
    model.pieces.put("")
    expect(page.get_by_role("button", name="Good reply")).to_be_visible()


def test_the_chat_works_on_a_phone(
    open_page: Callable[..., Page], model: Script, tess: User, no_violations: Callable[[Page], None]
) -> None:
    model.replies.put(POEM)
    page = open_page("/chat/?project=kite", tess, viewport=PHONE)
    page.get_by_label("Message", exact=True).fill("How do kites fly?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".prose li")).to_have_count(2)
    shot(page, "phone-chat")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    no_violations(page)
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_role("link", name="How do kites fly?")).to_be_visible()
    shot(page, "phone-chat-list")
    no_violations(page)


def test_the_chat_works_without_scripts(open_page: Callable[..., Page], model: Script, tess: User) -> None:
    model.replies.put(POEM)
    page = open_page("/chat/?project=kite", tess, java_script_enabled=False)
    page.get_by_label("Message", exact=True).fill("How do kites fly?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".prose li")).to_have_count(2)  # the page reloads by itself until the reply is whole

    page.get_by_role("button", name="Bad reply").click()
    expect(page.get_by_label("Wrong or made up")).to_be_visible()
    assert Message.objects.get(role="assistant").feedback.get().thumb == -1


def test_dark_is_as_readable(
    open_page: Callable[..., Page], model: Script, tess: User, no_violations: Callable[[Page], None]
) -> None:
    model.replies.put(POEM)
    page = open_page("/chat/?project=kite", tess, color_scheme="dark")
    ask(page, "How do kites fly?")
    expect(page.locator(".prose li")).to_have_count(2)
    page.get_by_role("button", name="Bad reply").click()
    expect(page.get_by_label("Wrong or made up")).to_be_visible()
    shot(page, "chat-dark")
    no_violations(page)
