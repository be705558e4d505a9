"""The chat where things go wrong: two devices, failed sends, a silent line, deleted conversations, long ones.

Over 300 lines: all cases share two devices and a scripted model server.
"""

from __future__ import annotations

import queue
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone
from playwright.sync_api import Page, Route, expect

from tests import factories
from tests.browser.scripted import Script
from tests.browser.test_chat import ask, shot, until
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.chat import generation, stream_views, views
from webapp.chat.models import Conversation, Erasure, Message
from webapp.chat.services import conversations
from webapp.datasets.models import Snapshot, SnapshotItem
from webapp.registry.models import Deployment
from webapp.registry.services import retire


def message_field(page: Page) -> Any:
    return page.get_by_label("Message", exact=True)


def lose_the_answer(route: Route) -> None:
    """The request reaches the server, its response does not reach the page."""
    route.fetch()
    route.abort()


def finish_replies() -> None:
    """Wait for the replies that are being written."""
    for future in list(generation.under_way):
        future.result(timeout=20)


def begun(page: Page) -> None:
    """Tess's first question is answered."""
    ask(page, "What is a kite?")
    expect(page.locator(".message.assistant > .prose")).to_have_count(1)


def test_two_devices_show_the_same_conversation(open_page: Callable[..., Page], model: Script, tess: User) -> None:
    desk = open_page("/chat/?project=kite", tess)
    begun(desk)
    phone = open_page(desk.url, tess)
    expect(phone.locator(".message.assistant > .prose")).to_have_count(1)
    message_field(phone).fill("Half typed on the phone")
    model.pieces = queue.Queue()

    ask(desk, "And how does it fly?")

    expect(phone.locator(".bubble")).to_have_text(["What is a kite?", "And how does it fly?"])
    expect(phone.get_by_role("button", name="Stop")).to_be_visible()
    model.pieces.put("By the wind")
    expect(phone.locator(".streaming")).to_have_text("By the wind")
    phone.get_by_role("button", name="Stop").click()
    for page in (desk, phone):
        expect(page.get_by_text("You stopped this reply.")).to_be_visible()
    expect(message_field(phone)).to_have_value("Half typed on the phone")
    model.pieces.put("")


def test_sending_while_a_reply_is_written_elsewhere_shows_that_reply(
    open_page: Callable[..., Page], model: Script, tess: User
) -> None:
    page = open_page("/chat/?project=kite", tess)
    begun(page)
    page.route("**/news/*", lambda route: route.abort())
    page.reload()
    model.pieces = queue.Queue()
    talk = Conversation.objects.get()
    conversations.send(conversation=talk, text="From the other device", token=uuid.uuid4())

    ask(page, "From this one")

    expect(page.get_by_text("The previous reply is still being written")).to_be_visible()
    expect(page.locator(".bubble")).to_have_text(["What is a kite?", "From the other device"])
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(message_field(page)).to_have_value("From this one")
    model.pieces.put("Done.")
    model.pieces.put("")
    expect(page.locator(".message.assistant > .prose")).to_have_count(2)


def test_a_text_survives_that_the_deployment_ends_before_it_is_sent(
    open_page: Callable[..., Page], model: Script, tess: User, project: Project
) -> None:
    page = open_page("/chat/?project=kite", tess)
    begun(page)
    page.goto("/chat/?project=kite")
    message_field(page).fill("A long and careful text.")
    retire(deployment=Deployment.objects.get(), by=project.created_by)
    page.keyboard.press("Enter")
    expect(page.get_by_text("No model of Kite is deployed")).to_be_visible()
    factories.deployment(project, project.models.first())

    page.goto(f"/chat/{Conversation.objects.get().pk}/")
    page.get_by_role("link", name="New chat").click()
    expect(message_field(page)).to_have_value("A long and careful text.")
    page.keyboard.press("Enter")
    expect(page.locator(".bubble")).to_have_text("A long and careful text.")
    page.get_by_role("link", name="New chat").click()
    expect(message_field(page)).to_have_value("")


def end_session(page: Page) -> None:
    """Take the session's cookie away for good: an answer that is under way may bring it back."""
    expect(page.get_by_role("button", name="Good reply")).to_be_visible()
    for _ in range(20):
        page.context.clear_cookies(name=settings.SESSION_COOKIE_NAME)
        page.wait_for_timeout(500)
        if not any(cookie["name"] == settings.SESSION_COOKIE_NAME for cookie in page.context.cookies()):
            return
    raise AssertionError("the session's cookie comes back again and again")


def test_a_text_survives_the_end_of_the_session(open_page: Callable[..., Page], model: Script, tess: User) -> None:
    page = open_page("/chat/?project=kite", tess)
    begun(page)
    cookies = page.context.cookies()
    end_session(page)

    ask(page, "Typed before the end")

    expect(page.get_by_text("You have been signed out")).to_be_visible()
    expect(message_field(page)).to_have_value("Typed before the end")
    expect(page.locator(".bubble")).to_have_text("What is a kite?")
    page.context.add_cookies(cookies)  # type: ignore[arg-type]
    page.reload()
    expect(message_field(page)).to_have_value("Typed before the end")


def test_a_text_whose_answer_was_lost_counts_once_and_what_follows_is_kept(
    open_page: Callable[..., Page], model: Script, tess: User
) -> None:
    page = open_page("/chat/?project=kite", tess)
    begun(page)
    page.route("**/news/*", lambda route: route.abort())
    page.reload()
    page.route("**/send/", lose_the_answer)
    ask(page, "Once")
    until(page, lambda: Message.objects.filter(text="Once").count() == 1)
    finish_replies()
    expect(message_field(page)).to_have_value("Once")
    page.unroute("**/send/")

    page.keyboard.press("Enter")
    expect(page.locator(".bubble")).to_have_text(["What is a kite?", "Once"])
    expect(message_field(page)).to_have_value("")
    assert Message.objects.filter(text="Once").count() == 1

    page.route("**/send/", lose_the_answer)
    ask(page, "Twice")
    until(page, lambda: Message.objects.filter(text="Twice").count() == 1)
    finish_replies()
    page.unroute("**/send/")
    ask(page, "Twice, but other words")
    expect(page.locator(".bubble").last).to_have_text("Twice, but other words")
    page.reload()
    expect(message_field(page)).to_have_value("")


def test_a_text_whose_answer_was_lost_leaves_the_field_when_the_page_hears_of_it(
    open_page: Callable[..., Page], model: Script, tess: User
) -> None:
    page = open_page("/chat/?project=kite", tess)
    begun(page)
    page.route("**/send/", lose_the_answer)
    ask(page, "Once")
    expect(page.locator(".bubble")).to_have_text(["What is a kite?", "Once"])
    expect(message_field(page)).to_have_value("")


def test_an_edit_and_a_better_answer_survive_a_reload_and_go_when_they_are_saved(
    open_page: Callable[..., Page], model: Script, tess: User
) -> None:
    page = open_page("/chat/?project=kite", tess)
    begun(page)
    page.get_by_label("Edit", exact=True).click()
    page.get_by_label("Edit your message").fill("What is a hawk?")
    page.get_by_role("button", name="Bad reply").click()
    page.get_by_label("A better answer").fill("A bird.")
    page.get_by_label("Comment").fill("No.")
    page.reload()
    expect(page.get_by_label("Edit your message")).to_have_value("What is a hawk?")
    expect(page.get_by_label("A better answer")).to_have_value("A bird.")

    page.get_by_role("button", name="Save").click()
    expect(page.locator(".feedback > summary")).to_have_text("Your feedback")
    page.get_by_label("Edit your message").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Edit your message")).to_be_hidden()
    expect(page.get_by_label("Edit", exact=True)).to_be_focused()
    page.reload()
    expect(page.get_by_label("Edit your message")).to_be_hidden()
    expect(page.get_by_label("A better answer")).to_be_hidden()
    page.get_by_label("Edit", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Edit your message")).to_be_hidden()


def test_a_line_that_is_silent_is_noticed_and_opened_again(
    open_page: Callable[..., Page], model: Script, tess: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "SILENCE_SECONDS", 0.7)
    monkeypatch.setattr(stream_views, "PING_SECONDS", 3600.0)
    model.pieces = queue.Queue()
    page = open_page("/chat/?project=kite", tess)
    ask(page, "Go on.")
    page.wait_for_url("**/chat/*-*/")
    model.pieces.put("one")
    expect(page.locator(".streaming")).to_have_text("one")

    expect(page.get_by_text("Reconnecting…")).to_be_visible()
    model.pieces.put(" two")
    expect(page.locator(".streaming")).to_have_text("one two")
    model.pieces.put("")
    expect(page.locator(".message.assistant > .prose")).to_have_text("one two")


def test_a_deleted_conversation_comes_back_from_its_list_and_its_address(
    open_page: Callable[..., Page], model: Script, tess: User, no_violations: Callable[[Page], None]
) -> None:
    page = open_page("/chat/?project=kite", tess)
    begun(page)
    address = page.url
    page.goto("about:blank")  # an open page would hear of it and go on by itself
    conversations.delete(conversation=Conversation.objects.get())
    page.goto(address)
    no_violations(page)
    shot(page, "chat-deleted-one")
    page.get_by_role("link", name="All deleted conversations").click()
    expect(page.get_by_text("30 days left")).to_be_visible()
    no_violations(page)
    shot(page, "chat-deleted")
    page.get_by_role("button", name="Restore").click()
    expect(page.locator(".bubble")).to_have_text("What is a kite?")


@pytest.fixture
def long_talk(model: Script, tess: User, project: Project) -> Conversation:
    """300 exchanges."""
    talk = conversations.begin_conversation(user=tess, project=project, text="Question 0", token=uuid.uuid4())
    finish_replies()
    talk.refresh_from_db()
    parent = talk.leaf
    for number in range(1, 300):
        question = factories.message(talk, f"Question {number}", parent=parent)
        parent = factories.message(talk, f"**Answer** {number}\n\n- a\n- b", role="assistant", parent=question)
    Conversation.objects.filter(pk=talk.pk).update(leaf=parent)
    return talk


def test_a_long_conversation_is_read_on_demand_and_a_thumb_touches_its_message_only(
    open_page: Callable[..., Page], tess: User, long_talk: Conversation, no_violations: Callable[[Page], None]
) -> None:
    page = open_page(f"/chat/{long_talk.pk}/", tess)
    expect(page.locator(".message")).to_have_count(40)
    page.evaluate("document.querySelector('.message').dataset.kept = 'yes'")

    page.get_by_role("button", name="Bad reply").last.click()
    expect(page.get_by_label("Wrong or made up")).to_be_visible()
    assert page.evaluate("document.querySelector('.message').dataset.kept") == "yes"

    page.get_by_role("link", name="Show earlier messages").click()
    expect(page.locator(".message")).to_have_count(80)
    ask(page, "And now?")
    expect(page.locator(".bubble").last).to_have_text("And now?")
    expect(page.locator(".message.assistant > .prose").last).to_have_text("I do not know.")
    expect(page.locator(".message")).to_have_count(82)


def test_what_a_thumb_opens_is_in_view_with_its_button(
    open_page: Callable[..., Page], tess: User, long_talk: Conversation
) -> None:
    page = open_page(f"/chat/{long_talk.pk}/", tess, viewport={"width": 1280, "height": 800})
    page.get_by_role("button", name="Bad reply").last.click()
    save = page.get_by_role("button", name="Save")
    expect(save).to_be_visible()
    composer = page.locator(".composer-place")

    def above_the_composer() -> bool:
        button, place = existing(save.bounding_box()), existing(composer.bounding_box())
        return button["y"] > 0 and button["y"] + button["height"] <= place["y"] + 20

    until(page, above_the_composer)
    shot(page, "chat-thumb-800")


def test_the_toast_does_not_cover_the_place_to_write(open_page: Callable[..., Page], model: Script, tess: User) -> None:
    page = open_page("/chat/?project=kite", tess, viewport={"width": 390, "height": 844})
    begun(page)
    page.context.set_offline(True)
    ask(page, "Are you there?")
    toast = page.locator(".toast.error").last
    expect(toast).to_be_visible()
    shot(page, "chat-offline-phone")
    box, place = toast.bounding_box(), page.locator(".composer").bounding_box()
    assert existing(box)["y"] + existing(box)["height"] <= existing(place)["y"]
    page.context.set_offline(False)


@pytest.mark.parametrize(("viewport", "scheme"), [(None, "light"), ({"width": 390, "height": 844}, "dark")])
def test_the_pages_about_ones_data_read_well(
    open_page: Callable[..., Page],
    model: Script,
    tess: User,
    mo: User,
    project: Project,
    no_violations: Callable[[Page], None],
    viewport: dict[str, int] | None,
    scheme: str,
) -> None:
    learned = factories.model_version(project, name="Learned it")
    snapshot = factories.snapshot(project, Snapshot.Kind.PROMPTS)
    SnapshotItem.objects.create(snapshot=snapshot, row=7, erased_at=timezone.now())
    run = factories.run(project, "ppo", output=learned, state="running", started_at=timezone.now() - timedelta(hours=1))
    run.snapshots.add(snapshot)
    Erasure.objects.create(user=tess, project=project, reason="all", conversations=2, rows={"prompts": [7]})
    talk = factories.conversation(tess, project, title="A word of " + "x" * 80)
    conversations.delete(conversation=talk)
    options = {"color_scheme": scheme} | ({"viewport": viewport} if viewport else {})

    for person, path, name in (
        (tess, "/chat/data/", "own-data"),
        (tess, "/chat/data/kite/deleted/", "deleted"),
        (tess, f"/chat/{talk.pk}/", "deleted-one"),
        (tess, "/chat/data/delete-account/", "delete-account"),
        (mo, "/projects/kite/withdrawn-data/", "withdrawn-data"),
    ):
        page = open_page(path, person, **options)
        no_violations(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shot(page, f"{name}-{scheme}")
