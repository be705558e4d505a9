"""An annotator's day, in a browser.

Over 300 lines: every case starts from the same desk, and a day's steps are read best together.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.utils import timezone
from playwright.sync_api import Page, Route, expect

from annotations.models import Demonstration, Draft, Lease, Ranking, Review, Task
from annotations.services.tasks import open_review_task
from tests import factories
from tests.browser.conftest import PHONE
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.accounts.services import set_guidelines

LONG = "A kite flies because **wind** pushes on its tilted face.\n\n- hold the line\n- run into the wind"


@pytest.fixture
def day(project: Project, ann: User, ada: User) -> Project:
    """One task to write, two to rank, one to review."""
    factories.task(project, Task.Kind.WRITE, priority=3, prompt=factories.prompt(project, "Why does a kite fly?"))
    for priority in (2, 1):
        about = factories.prompt(project, f"Name {priority} colors of kites.")
        replies = [factories.response(about, f"{LONG}\n\nReply number {n}.") for n in range(4)]
        factories.task(project, Task.Kind.RANK, priority=priority, prompt=about, responses=replies)
    about = factories.prompt(project, "What is a tail for?")
    open_review_task(demonstration=factories.demonstration(project, ada, "It keeps the kite steddy.", prompt=about))
    return project


def title(page: Page, text: str) -> None:
    expect(page.locator("#label-title")).to_have_text(text)


def test_a_day_on_the_keyboard(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/", ann)
    title(page, "Write a reply")
    page.keyboard.type("Because the wind lifts it.")
    page.keyboard.press("Control+Enter")
    title(page, "Rank 4 replies")
    assert Demonstration.objects.get(author=ann).response.text == "Because the wind lifts it."
    expect(page.locator(".reply").first).to_be_focused()

    for digit in "2133":
        page.keyboard.press(digit)
    page.keyboard.press("Enter")
    expect(page.locator("#label-prompt, .label-prompt")).to_contain_text("Name 1 colors")
    ranking = Ranking.objects.get()
    a, b, c, d = ranking.order_shown
    assert ranking.groups == [[b], [a], [c, d]]

    page.keyboard.press("u")
    expect(page.locator(".label-prompt")).to_contain_text("Name 2 colors")
    expect(page.locator(f"input[name=rank_{b}][value='1']")).to_be_checked()
    page.locator(f".reply[data-reply='{a}']").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator(".label-prompt")).to_contain_text("Name 1 colors")
    assert Ranking.objects.get(retracted_at=None).groups == [[a, b], [c, d]]

    page.keyboard.press("s")
    page.keyboard.press("Enter")
    title(page, "Review a reply")
    assert Lease.objects.filter(outcome=Lease.Outcome.SKIPPED, skip_reason="").exists()

    page.keyboard.press("e")
    page.locator("#id_text").fill("It keeps the kite steady.")
    page.keyboard.press("Control+Enter")
    title(page, "Nothing left to do here")
    assert existing(Review.objects.get().corrected).response.text == "It keeps the kite steady."


def test_equals_ties_with_the_reply_ranked_last(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann)
    title(page, "Rank 4 replies")
    for key in ("1", "=", "=", "2"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator(".label-saved")).to_be_visible()
    a, b, c, d = Ranking.objects.get().order_shown
    assert Ranking.objects.get().groups == [[a, b, c], [d]]


def test_a_reply_without_a_rank_is_named(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#label-alert")).to_contain_text("3 replies have no rank yet.")
    assert not Ranking.objects.exists()


def test_ranking_by_drag(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann)
    for letter, slot in (("A", 2), ("B", 1), ("C", 2), ("D", 4)):
        page.locator(".reply .letter", has_text=letter).hover()
        page.mouse.down()
        page.locator(f".slot[data-slot='{slot}']").hover()
        page.mouse.up()
    expect(page.locator(".slot[data-slot='2'] .letter")).to_have_text(["A", "C"])
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".label-saved")).to_be_visible()
    a, b, c, d = Ranking.objects.get().order_shown
    assert Ranking.objects.get().groups == [[b], [a, c], [d]]


def test_a_draft_survives_a_reload(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/", ann)
    page.keyboard.type("Because the wi")
    expect(page.locator("#draft-state")).to_have_text("Draft saved")
    page.evaluate("localStorage.clear()")  # the server's copy alone
    page.reload()
    expect(page.locator("#id_text")).to_have_value("Because the wi")


def test_a_draft_survives_a_server_that_is_away(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/", ann)
    page.route("**/draft/", lambda route: route.abort())
    page.keyboard.type("Because the wi")
    expect(page.locator("#draft-state")).to_have_text("Draft kept in this browser")
    page.reload()
    expect(page.locator("#id_text")).to_have_value("Because the wi")


def test_flags_and_ranks_are_restored_too(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann)
    page.route("**/draft/", lambda route: route.abort())
    page.keyboard.press("3")
    page.locator(".reply").first.locator("summary").click()
    page.locator(".reply").first.get_by_label("Rude").check()
    page.reload()
    card = page.locator(".reply").first
    expect(card.locator(".ranks input:checked")).to_have_value("3")
    expect(card.locator(".flags input:checked")).to_have_value("rude")


def test_a_submission_that_fails_is_sent_again_and_counts_once(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/", ann)
    sent = []

    def reaches_the_server_but_the_answer_is_lost(route: Any) -> None:
        sent.append(route.request.post_data)
        if len(sent) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/submit/", reaches_the_server_but_the_answer_is_lost)
    page.keyboard.type("Because the wind lifts it.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#label-alert")).to_contain_text("sent again by itself")
    page.get_by_role("button", name="Send now").click()
    title(page, "Rank 4 replies")
    assert len(sent) == 2
    assert Demonstration.objects.filter(author=ann).count() == 1


def test_a_submission_that_was_never_confirmed_is_sent_when_the_page_opens_again(
    day: Project, ann: User, open_page: Any
) -> None:
    page = open_page("/label/", ann)
    page.route("**/submit/", lambda route: route.abort())
    page.keyboard.type("Because the wind lifts it.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#label-alert")).to_be_visible()
    page.unroute("**/submit/")
    page.goto(page.url)
    title(page, "Rank 4 replies")
    assert Demonstration.objects.get(author=ann).response.text == "Because the wind lifts it."


def test_a_session_that_ends_mid_work_loses_nothing(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/", ann)
    cookies = page.context.cookies()
    page.keyboard.type("Because the wind lifts it.")
    page.context.clear_cookies()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#label-alert")).to_contain_text("signed out")
    expect(page.locator("#id_text")).to_have_value("Because the wind lifts it.")
    page.context.add_cookies(cookies)  # signed in again, in another window
    page.get_by_role("button", name="Submit").click()
    title(page, "Rank 4 replies")
    assert Demonstration.objects.filter(author=ann).count() == 1


def test_a_lapsed_hold_is_shown_and_the_late_answer_is_kept(day: Project, ann: User, ben: User, open_page: Any) -> None:
    page = open_page("/label/", ann)
    page.keyboard.type("Because the wind lifts it.")
    held = Lease.objects.get(person=ann)
    Lease.objects.filter(pk=held.pk).update(outcome=Lease.Outcome.LAPSED, seat=None)
    Lease.objects.create(task=held.task, person=ben, until=timezone.now() + timedelta(hours=1), seat=1)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#label-alert")).to_contain_text("someone else took it")
    page.keyboard.press("Control+Enter")
    title(page, "Rank 4 replies")
    assert existing(Demonstration.objects.get(author=ann).lease).seat is None


def test_help_and_guidelines_are_one_key_away(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann)
    page.keyboard.press("?")
    expect(page.locator("#label-help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    expect(page.locator("#label-guidelines")).to_contain_text("Be correct, be kind, be brief.")
    page.keyboard.press("Escape")
    expect(page.locator("#label-guidelines")).to_be_hidden()


def test_the_preview_shows_what_will_be_seen(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/", ann)
    page.keyboard.type("It **flies**.")
    page.keyboard.press("Alt+p")
    expect(page.locator(".preview strong")).to_have_text("flies")


def test_ranking_with_a_thumb(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann, viewport=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for number, card in enumerate(page.locator(".reply").all()):
        card.locator(".ranks label").nth(number).tap()
    page.get_by_role("button", name="Submit").tap()
    expect(page.locator(".label-saved")).to_be_visible()
    assert [len(group) for group in Ranking.objects.get().groups] == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["write", "rank", "review"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(
    day: Project, ann: User, open_page: Any, no_violations: Any, kind: str, scheme: str
) -> None:
    page = open_page(f"/label/?kind={kind}", ann, color_scheme=scheme)
    if kind == "rank":
        page.keyboard.press("1")
        page.locator(".reply summary").first.click()
    elif kind == "review":
        page.keyboard.press("e")
    no_violations(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    no_violations(page)


def test_history_and_the_empty_page_are_accessible(day: Project, ann: User, open_page: Any, no_violations: Any) -> None:
    page = open_page("/label/?kind=write", ann)
    page.keyboard.type("Because the wind lifts it.")
    page.keyboard.press("Control+Enter")
    title(page, "Nothing left to do here")
    no_violations(page)
    page.goto("/label/history/")
    no_violations(page)
    page.get_by_role("button", name="Take back and change").click()
    expect(page.locator("#id_text")).to_have_value("Because the wind lifts it.")


def test_it_works_without_scripts(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/", ann, java_script_enabled=False)
    page.locator("#id_text").fill("Because the wind lifts it.")
    page.get_by_role("button", name="Submit").click()
    title(page, "Rank 4 replies")
    for card in page.locator(".reply").all():
        card.locator(".ranks input").first.check(force=True)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".label-saved")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".ranks input:checked")).to_have_count(4)
    assert Ranking.objects.get().groups[0] == Ranking.objects.get().order_shown


def answer(page: Page, text: str) -> None:
    page.locator("#id_text").fill(text)
    page.keyboard.press("Control+Enter")


@pytest.fixture
def three_to_write(project: Project) -> Project:
    for n in range(3):
        factories.task(project, Task.Kind.WRITE, prompt=factories.prompt(project, f"Question {n}?"))
    return project


def test_going_back_leaves_the_page_however_many_answers_were_given(
    three_to_write: Project, ann: User, open_page: Any
) -> None:
    page = open_page("/", ann)
    page.goto("/label/?kind=write")
    for n in range(3):
        expect(page.locator(".label-prompt")).to_contain_text(f"Question {n}?")
        answer(page, f"Answer {n}.")
    title(page, "Nothing left to do here")
    page.go_back()
    page.wait_for_url("**/")
    page.go_forward()
    title(page, "Nothing left to do here")
    expect(page.locator(".site-header")).to_be_visible()


def test_a_page_that_is_gone_back_to_is_whole_and_keeps_what_is_typed(
    three_to_write: Project, ann: User, open_page: Any
) -> None:
    page = open_page("/label/?kind=write", ann)
    answer(page, "Answer 0.")
    expect(page.locator(".label-prompt")).to_contain_text("Question 1?")
    page.locator("#id_text").fill("Half an ans")
    page.locator(".label-head a").first.click()  # the history
    page.wait_for_url("**/history/")
    page.go_back()
    expect(page.locator(".site-header")).to_be_visible()
    expect(page.locator("#id_text")).to_have_value("Half an ans")
    page.keyboard.type("wer")
    expect(page.locator("#draft-state")).to_have_text("Draft saved")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".label-prompt")).to_contain_text("Question 2?")


def test_after_an_undo_going_back_and_forward_shows_the_whole_page(
    three_to_write: Project, ann: User, open_page: Any
) -> None:
    page = open_page("/label/?kind=write", ann)
    answer(page, "Answer 0.")
    page.locator("#label-undo button").click()
    expect(page.locator("#id_text")).to_have_value("Answer 0.")
    page.reload()
    expect(page.locator("#id_text")).to_have_value("Answer 0.")
    page.goto("/label/history/")
    page.go_back()
    expect(page.locator(".site-header")).to_be_visible()
    expect(page.locator("#id_text")).to_have_value("Answer 0.")


def two_devices(open_page: Any, person: User) -> tuple[Page, Page]:
    """A desktop and a phone with one draft open, which begins "A kite"."""
    desktop = open_page("/label/?kind=write", person)
    desktop.locator("#id_text").fill("A kite")
    expect(desktop.locator("#draft-state")).to_have_text("Draft saved")
    phone = open_page("/label/?kind=write", person, viewport=PHONE)
    expect(phone.locator("#id_text")).to_have_value("A kite")
    phone.locator("#id_text").press_sequentially(" and went on by phone")
    expect(phone.locator("#draft-state")).to_have_text("Draft saved")
    return desktop, phone


def test_two_devices_are_offered_both_texts_and_none_is_overwritten(
    day: Project, ann: User, open_page: Any, no_violations: Any
) -> None:
    desktop, phone = two_devices(open_page, ann)
    desktop.locator("#id_text").fill("A kite by desktop")
    conflict = desktop.locator("#label-conflict")
    expect(conflict).to_contain_text("A kite and went on by phone")
    expect(conflict).to_contain_text("A kite by desktop")
    expect(conflict).to_be_in_viewport()
    no_violations(desktop)
    assert Draft.objects.get().content == {"text": "A kite and went on by phone"}
    desktop.keyboard.press("Control+Enter")  # not before a choice
    assert not Demonstration.objects.filter(author=ann).exists()

    desktop.get_by_role("button", name="Keep both").click()
    expect(desktop.locator("#draft-state")).to_have_text("Draft saved")
    assert Draft.objects.get().content == {"text": "A kite by desktop\n\nA kite and went on by phone"}
    phone.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(phone.locator("#id_text")).to_have_value("A kite by desktop\n\nA kite and went on by phone")


@pytest.mark.parametrize(
    ("button", "kept"), [("Keep this one", "A kite by desktop"), ("Use this one", "A kite and went on by phone")]
)
def test_either_text_can_be_kept_and_sent(day: Project, ann: User, open_page: Any, button: str, kept: str) -> None:
    desktop, _ = two_devices(open_page, ann)
    desktop.locator("#id_text").fill("A kite by desktop")
    desktop.get_by_role("button", name=button).click()
    expect(desktop.locator("#id_text")).to_have_value(kept)
    desktop.keyboard.press("Control+Enter")
    title(desktop, "Nothing left to do here")
    assert Demonstration.objects.get(author=ann).response.text == kept


def test_an_older_page_takes_over_the_newer_draft_when_nothing_was_typed_in_it(
    day: Project, ann: User, open_page: Any
) -> None:
    desktop, _ = two_devices(open_page, ann)
    desktop.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(desktop.locator("#id_text")).to_have_value("A kite and went on by phone")


def test_a_submission_from_an_older_page_does_not_drop_the_newer_draft(day: Project, ann: User, open_page: Any) -> None:
    desktop, _ = two_devices(open_page, ann)
    desktop.locator("#id_text").focus()
    desktop.keyboard.press("Control+Enter")
    expect(desktop.locator("#label-conflict")).to_contain_text("went on by phone")
    assert not Demonstration.objects.filter(author=ann).exists()


def test_two_tabs_that_typed_without_a_server_lose_nothing(day: Project, ann: User, open_page: Any) -> None:
    first = open_page("/label/?kind=write", ann)
    second = first.context.new_page()
    second.goto("/label/?kind=write")
    first.context.route("**/draft/", lambda route: route.abort())
    first.locator("#id_text").fill("By the first tab")
    second.locator("#id_text").fill("By the second tab")
    expect(second.locator("#draft-state")).to_have_text("Draft kept in this browser")
    second.close()
    first.reload()
    conflict = first.locator("#label-conflict")
    expect(conflict).to_contain_text("By the first tab")
    expect(conflict).to_contain_text("By the second tab")


def keep_a_draft_here(page: Page, text: str) -> str:
    """Types `text` while the server does not answer. Returns the path to which its draft is sent later."""
    page.context.set_offline(True)
    page.locator("#id_text").fill(text)
    expect(page.locator("#draft-state")).to_have_text("Draft kept in this browser")
    path = page.locator("#label").get_attribute("data-draft")
    assert path
    page.goto("about:blank")
    page.context.set_offline(False)
    return path


def test_a_draft_that_the_server_refused_is_kept_and_sent_no_more(
    three_to_write: Project, ann: User, open_page: Any
) -> None:
    desktop = open_page("/label/?kind=write", ann)
    refused = keep_a_draft_here(desktop, "By the desktop")
    phone = open_page("/label/?kind=write", ann, viewport=PHONE)
    answer(phone, "By the phone")
    expect(phone.locator(".label-prompt")).to_contain_text("Question 1?")
    with desktop.expect_response(lambda response: response.url.endswith(refused)) as response:
        desktop.goto("/label/?kind=write")
    assert response.value.status == 409
    desktop.wait_for_timeout(100)  # in which the page takes note
    sent: list[str] = []
    desktop.on("request", lambda request: sent.append(request.url))
    for n in (1, 2):
        expect(desktop.locator(".label-prompt")).to_contain_text(f"Question {n}?")
        answer(desktop, f"Answer {n}.")
    title(desktop, "Nothing left to do here")
    desktop.wait_for_timeout(300)  # in which the last page would send what waits
    assert not [url for url in sent if url.endswith(refused)]
    assert "By the desktop" in desktop.evaluate("JSON.stringify(localStorage)")


def test_a_draft_that_another_window_sends_meanwhile_does_not_hold_up_the_next(
    three_to_write: Project, ann: User, open_page: Any
) -> None:
    page = open_page("/label/?kind=write", ann)
    page.evaluate(
        """() => {
          const { person } = document.getElementById("label-root").dataset;
          for (const n of [1, 2, 3]) {
            const name = `label:${person}:${9000 + n}:00000000-0000-4000-8000-00000000000${n}`;
            const draftUrl = `/label/leases/${9000 + n}/draft/`;
            localStorage.setItem(name, JSON.stringify({ typedAt: Date.now(), fields: { text: "Text" }, draftUrl }));
          }
        }"""
    )
    held: list[Route] = []
    page.route("**/draft/", lambda route: held.append(route))  # noqa: PLW0108 (it refuses a method of a built-in)
    with page.expect_request("**/draft/"):
        page.reload()
    page.wait_for_timeout(100)
    waiting = page.evaluate(
        """(sending) => {
          const drafts = Object.keys(localStorage).filter((name) => name.includes(":900"));
          const waiting = drafts.filter((name) => !localStorage[name].includes(sending));
          localStorage.removeItem(waiting[0]);
          return JSON.parse(localStorage[waiting[1]]).draftUrl;
        }""",
        urlsplit(held[0].request.url).path,
    )
    with page.expect_request(f"**{waiting}"):
        held[0].continue_()
    page.wait_for_timeout(100)
    held[1].continue_()


def test_ranks_of_two_devices_are_offered_both(day: Project, ann: User, open_page: Any) -> None:
    desktop = open_page("/label/?kind=rank", ann)
    phone = open_page("/label/?kind=rank", ann, viewport=PHONE)
    phone.locator(".reply").first.locator(".ranks label").nth(2).click()
    expect(phone.locator("#draft-state")).to_have_text("Draft saved")
    desktop.keyboard.press("1")
    conflict = desktop.locator("#label-conflict")
    expect(conflict).to_contain_text("Rank of reply A")
    desktop.get_by_role("button", name="Use this one").click()
    expect(desktop.locator(".slot[data-slot='3'] .letter")).to_have_text(["A"])
    expect(desktop.locator("#draft-state")).to_have_text("Draft saved")


# The texts of pairs of elements, one of each selector, that lie on each other.
TOUCH = """([these, those]) => {
  const box = (element) => [element.textContent.trim(), element.getBoundingClientRect()];
  const boxes = (selector) => [...document.querySelectorAll(selector)].map(box);
  const touch = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return boxes(these).flatMap(([a, one]) => boxes(those).filter(([, other]) => touch(one, other)).map(([b]) => [a, b]));
}"""


def lose_the_first_answer(page: Page) -> list[str]:
    """The first submission reaches the server, its response does not reach the page. Returns what is sent."""
    sent: list[str] = []

    def handle(route: Any) -> None:
        sent.append(route.request.post_data)
        if len(sent) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/submit/", handle)
    return sent


def test_nothing_can_be_typed_into_an_answer_that_is_on_its_way(
    day: Project, ann: User, open_page: Any, no_violations: Any
) -> None:
    page = open_page("/label/?kind=write", ann)
    lose_the_first_answer(page)
    answer(page, "Because the wind lifts it.")
    expect(page.locator("#label-alert")).to_contain_text("sent again by itself")
    expect(page.locator("#label-alert")).to_be_in_viewport()
    page.keyboard.type(" PLUS AN IMPORTANT CORRECTION")
    expect(page.locator("#id_text")).to_have_value("Because the wind lifts it.")
    page.get_by_role("button", name="Send now").click()
    title(page, "Nothing left to do here")
    assert Demonstration.objects.filter(author=ann).count() == 1


def test_an_answer_that_is_changed_before_it_was_confirmed_replaces_the_first(
    day: Project, ann: User, open_page: Any
) -> None:
    page = open_page("/label/?kind=write", ann)
    sent = lose_the_first_answer(page)
    answer(page, "Because the wind lifts it.")
    page.get_by_role("button", name="Change it").click()
    page.locator("#id_text").press_sequentially(" Plus an important correction.")
    expect(page.locator("#draft-state")).to_have_text("Draft saved")
    assert not Demonstration.objects.filter(author=ann, retracted_at=None).exists()  # it is being changed
    page.reload()
    expect(page.locator("#id_text")).to_have_value("Because the wind lifts it. Plus an important correction.")
    page.keyboard.press("Control+Enter")
    title(page, "Nothing left to do here")
    assert len(sent) == 2
    live = Demonstration.objects.get(author=ann, retracted_at=None)
    assert live.response.text == "Because the wind lifts it. Plus an important correction."


def test_an_answer_can_be_changed_while_it_is_being_sent_again(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=write", ann)
    routes: list[Route] = []

    def handle(route: Route) -> None:
        routes.append(route)
        if len(routes) == 1:
            route.abort()
        elif len(routes) > 2:
            route.continue_()

    page.route("**/submit/", handle)
    answer(page, "Because the wind lifts it.")
    with page.expect_request("**/submit/"):
        page.get_by_role("button", name="Send now").click()
    response = routes[1].fetch()  # the server has it, and the page does not know yet
    page.get_by_role("button", name="Change it").click()
    page.locator("#id_text").press_sequentially(" Plus a correction.")
    routes[1].fulfill(response=response)
    expect(page.locator("#draft-state")).to_have_text("Draft saved")
    expect(page.locator("#id_text")).to_have_value("Because the wind lifts it. Plus a correction.")
    page.keyboard.press("Control+Enter")
    title(page, "Nothing left to do here")
    live = Demonstration.objects.get(author=ann, retracted_at=None)
    assert live.response.text == "Because the wind lifts it. Plus a correction."


def test_a_skip_takes_a_reason_only_when_one_is_chosen_and_can_be_undone(
    day: Project, ann: User, open_page: Any
) -> None:
    page = open_page("/label/?kind=write", ann)
    page.keyboard.type("Because the wi")
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(".label-saved")).to_contain_text("Skipped.")
    page.set_viewport_size({"width": 1000, "height": 800})
    assert page.evaluate(TOUCH, ["#label-kinds a", ".label-saved, .label-head a, .label-head button"]) == []
    assert Lease.objects.get(outcome=Lease.Outcome.SKIPPED).skip_reason == "The prompt is unclear"
    page.keyboard.press("u")
    expect(page.locator("#id_text")).to_have_value("Because the wi")
    assert Lease.objects.get().outcome == Lease.Outcome.HELD


def hold(page: Page, address: str) -> list[Route]:
    """Requests to the address wait until the test lets them go on. Returns those that wait."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.route(address, keep)
    return held


@pytest.fixture
def older_action(day: Project, ann: User, open_page: Any) -> Page:
    """A page that ranks, and offers to undo the demonstration before."""
    page = open_page("/label/", ann)
    answer(page, "Because the wind lifts it.")
    title(page, "Rank 4 replies")
    expect(page.locator(".label-prompt")).to_contain_text("Name 2 colors")
    return page


def assert_only_the_newer_was_undone(page: Page) -> None:
    expect(page.locator("#label-undo")).to_have_count(0)
    title(page, "Rank 4 replies")
    expect(page.locator(".label-prompt")).to_contain_text("Name 2 colors")
    assert Demonstration.objects.get(author__name="Ann").retracted_at is None


@pytest.mark.parametrize("how", ["key", "button"])
def test_an_undo_during_a_skip_waits_for_it_and_undoes_it(older_action: Page, how: str) -> None:
    page = older_action
    page.keyboard.press("2")
    held = hold(page, "**/skip/")
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    expect(page.locator("#draft-state")).to_have_text("Skipping…")
    page.keyboard.press("1")  # not into a task that is being skipped
    if how == "key":
        page.keyboard.press("u")
    else:
        page.locator("#label-undo button").click()
    expect(page.locator("#draft-state")).to_have_text("Undoing…")
    with page.expect_response("**/unskip/"):
        held[0].continue_()
    assert_only_the_newer_was_undone(page)
    ranks = [card.locator(".ranks input:checked").count() for card in page.locator(".reply").all()]
    assert ranks == [1, 0, 0, 0]
    assert not Lease.objects.filter(outcome=Lease.Outcome.SKIPPED).exists()


def test_an_undo_during_a_submission_waits_for_it_and_undoes_it(older_action: Page) -> None:
    page = older_action
    held = hold(page, "**/submit/")
    for key in ("2", "1", "3", "3", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#draft-state")).to_have_text("Sending…")
    page.locator("#label-undo button").click()
    with page.expect_response("**/undo/"):
        held[0].continue_()
    assert_only_the_newer_was_undone(page)
    expect(page.locator(".ranks input:checked")).to_have_count(4)
    assert Ranking.objects.get().retracted_at is not None


def test_an_undo_opens_an_answer_again_that_could_not_be_sent(older_action: Page) -> None:
    page = older_action
    held = hold(page, "**/submit/")
    for key in ("2", "1", "3", "3", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#draft-state")).to_have_text("Sending…")
    page.locator("#label-undo button").click()
    held[0].abort()
    expect(page.locator("#draft-state")).to_have_text("Draft saved")
    expect(page.locator("#label-fields")).not_to_have_attribute("inert", "")
    assert Demonstration.objects.get(author__name="Ann").retracted_at is None
    page.unroute("**/submit/")
    page.route("**/submit/", lambda route: route.abort())
    page.keyboard.press("Enter")
    expect(page.locator("#label-alert")).to_contain_text("sent again by itself")
    page.locator("#label-undo button").click()
    expect(page.locator("#label-alert")).to_be_hidden()
    expect(page.locator(".ranks input:checked")).to_have_count(4)
    assert Demonstration.objects.get(author__name="Ann").retracted_at is None


def test_a_skip_that_the_server_does_not_answer_opens_the_form_again(older_action: Page) -> None:
    page = older_action
    held = hold(page, "**/skip/")
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    expect(page.locator("#draft-state")).to_have_text("Skipping…")
    page.keyboard.press("u")
    held[0].abort()
    expect(page.locator("#label-alert")).to_contain_text("The server does not answer.")
    page.keyboard.press("2")
    expect(page.locator("#draft-state")).to_have_text("Draft saved")
    assert Demonstration.objects.get(author__name="Ann").retracted_at is None


def test_a_refusal_is_seen_where_one_is_and_goes_with_its_cause(
    project: Project, ann: User, ada: User, open_page: Any
) -> None:
    open_review_task(demonstration=factories.demonstration(project, ada, "A kite flies.\n\n" * 80))
    page = open_page("/label/", ann)
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    expect(page.locator("#label-alert")).to_contain_text("Say in a word or two why")
    expect(page.locator("#label-alert")).to_be_in_viewport(ratio=1)
    page.locator("#id_comment").fill("Too long.")
    expect(page.locator("#label-alert")).to_be_hidden()


def test_what_is_missing_is_said_no_longer_than_it_is_missing(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#label-alert")).to_contain_text("3 replies have no rank yet.")
    page.keyboard.press("2")
    expect(page.locator("#label-alert")).to_contain_text("2 replies have no rank yet.")
    for digit in "34":
        page.keyboard.press(digit)
    expect(page.locator("#label-alert")).to_be_hidden()


WIDE = "|" + "|".join(f"Column {n}" for n in range(12)) + "|\n" + "|---" * 12 + "|\n" + "| cell " * 12 + "|"


def test_nothing_widens_the_page_of_a_phone(project: Project, ann: User, open_page: Any, no_violations: Any) -> None:
    Project.objects.update(name="Kite" * 24)
    prompt = factories.prompt(project, "x" * 300)
    texts = (WIDE, "w" * 400, f"https://example.org/{'a' * 300}", f"`{'c' * 300}`", f"# {'h' * 200}")
    replies = [factories.response(prompt, text) for text in texts]
    factories.task(project, Task.Kind.RANK, prompt=prompt, responses=replies)
    for viewport in ({"width": 390, "height": 844}, {"width": 1280, "height": 800}):
        page = open_page("/label/", ann, viewport=viewport)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        expect(page.get_by_role("button", name="Submit")).to_be_in_viewport(ratio=1)
        table = page.locator(".table-scroller")
        assert viewport["width"] > 1000 or table.evaluate("box => box.scrollWidth > box.clientWidth")
        no_violations(page)
        page.keyboard.press("p")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for link in page.locator(".site-nav a").all():
        expect(link).to_be_in_viewport()


def test_right_to_left_text_runs_from_the_right(project: Project, ann: User, open_page: Any) -> None:
    prompt = factories.prompt(project, "למה עפיפון עף?")
    replies = [factories.response(prompt, text) for text in ("1. כי הרוח\n2. דוחפת.", "Because of the wind.")]
    factories.task(project, Task.Kind.RANK, prompt=prompt, responses=replies)
    factories.task(project, Task.Kind.WRITE, prompt=prompt)
    page = open_page("/label/?kind=rank", ann)
    direction = "element => getComputedStyle(element).direction"
    assert page.locator(".label-prompt .prose p").evaluate(direction) == "rtl"
    assert page.locator(".reply ol").evaluate(direction) == "rtl"
    assert page.locator(".reply .prose > p").evaluate(direction) == "ltr"
    page.goto("/label/?kind=write")
    page.locator("#id_text").fill("כי הרוח דוחפת.")
    assert page.locator("#id_text").evaluate(direction) == "rtl"


def test_text_can_be_seen_as_it_will_be_learned(
    project: Project, ann: User, open_page: Any, no_violations: Any
) -> None:
    prompt = factories.prompt(project, "Show a table and a function.")
    texts = ("def double(x):\n    return x + x\n\n# done\n", "use __init__ and a*b*c", "   ")
    factories.task(
        project, Task.Kind.RANK, prompt=prompt, responses=[factories.response(prompt, text) for text in texts]
    )
    page = open_page("/label/", ann)
    expect(page.locator(".replies")).to_contain_text("Only white space: 3 spaces.")
    expect(page.locator(".plain-text").first).to_be_hidden()
    page.keyboard.press("p")
    expect(page.locator("[data-toggle-plain]")).to_have_attribute("aria-pressed", "true")
    for text in texts:
        shown = page.locator(".reply .plain-text").evaluate_all("boxes => boxes.map((box) => box.textContent)")
        assert text.removesuffix("\n") in [words.removesuffix("\n") for words in shown]
    expect(page.locator(".reply .rendered-text").first).to_be_hidden()
    no_violations(page)
    page.reload()
    expect(page.locator(".reply .plain-text").first).to_be_visible()  # remembered
    page.get_by_role("button", name="Plain text").click()
    expect(page.locator(".reply .rendered-text").first).to_be_visible()


def press(page: Page, key: str, code: str, shift: bool = False) -> None:
    """A key as a keyboard of another country sends it."""
    page.evaluate(
        "([key, code, shiftKey]) => document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key, code, shiftKey, bubbles: true, cancelable: true}))",
        [key, code, shift],
    )


def test_digits_work_by_their_place_on_any_keyboard(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann)
    press(page, "é", "Digit2")  # French, without Shift
    press(page, "1", "Digit1", shift=True)  # French, with Shift
    press(page, "=", "Digit0", shift=True)  # German
    press(page, "3", "Numpad3")
    ranks = [card.locator(".ranks input:checked").get_attribute("value") for card in page.locator(".reply").all()]
    assert ranks == ["2", "1", "1", "3"]
    press(page, "!", "Digit1", shift=True)  # American, with Shift: no digit
    press(page, "End", "Numpad1")  # without NumLock: no digit
    expect(page.locator(".slot[data-slot='1'] .letter")).to_have_count(2)
    press(page, "з", "KeyP")  # Russian: the place of p
    expect(page.locator("html")).to_have_attribute("data-text-view", "plain")


def test_escape_leaves_every_field_and_keeps_what_it_holds(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann)
    card = page.locator(".reply").first
    card.locator("summary").click()
    card.locator("select").focus()
    card.locator("select").select_option("6")
    page.keyboard.press("Escape")
    expect(card).to_be_focused()
    page.keyboard.press("2")
    expect(card.locator(".ranks input:checked")).to_have_value("2")
    expect(card.locator("select")).to_have_value("6")
    page.keyboard.press("w")
    page.keyboard.type("It is kind.")
    page.keyboard.press("Escape")
    expect(page.locator("#id_reason")).to_have_value("It is kind.")
    page.keyboard.press("s")
    expect(page.locator(".skip .items")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".skip .items")).to_be_hidden()


def test_a_rank_can_be_cleared_and_the_strength_too(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann, viewport=PHONE, has_touch=True, is_mobile=True)
    card = page.locator(".reply").first
    card.locator(".ranks label").nth(1).tap()
    card.get_by_role("button", name="Clear the rank of reply A").tap()
    expect(card.locator(".ranks input:checked")).to_have_count(0)
    page.locator(".strength label").nth(4).tap()
    page.locator(".strength label").nth(0).tap()
    for reply in page.locator(".reply").all():
        reply.locator(".ranks label").first.tap()
    expect(page.locator(".all-tied")).to_be_visible()
    page.get_by_role("button", name="Submit").tap()
    expect(page.locator(".label-saved")).to_be_visible()
    assert Ranking.objects.get().strength is None


def test_new_guidelines_are_told_of_and_the_label_names_those_that_were_read(
    day: Project, ann: User, mo: User, open_page: Any
) -> None:
    page = open_page("/label/?kind=write", ann)
    newer = set_guidelines(project=day, text="Be brief above all.", user=mo)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#label-alert")).to_contain_text("version 2")
    page.get_by_role("button", name="Read version 2").click()
    expect(page.locator("#label-guidelines")).to_contain_text("Be brief above all.")
    page.keyboard.press("Escape")
    answer(page, "Because the wind lifts it.")
    title(page, "Nothing left to do here")
    assert Demonstration.objects.get(author=ann).guidelines == newer


def test_the_time_spent_is_fractional_and_goes_on_after_a_reload(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=write", ann)
    page.add_init_script(f"sessionStorage.setItem('label-time:{Lease.objects.get().task_id}', '41.3')")
    page.reload()
    page.wait_for_timeout(200)  # time is counted in tenths of a second
    with page.expect_request("**/submit/") as submission:
        answer(page, "Because the wind lifts it.")
    title(page, "Nothing left to do here")
    seconds = Demonstration.objects.get(author=ann).active_seconds
    assert seconds > 41.3
    assert f"active_seconds={seconds:.1f}" in (submission.value.post_data or "")


def test_the_counts_of_what_is_left_follow_each_label(three_to_write: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/", ann)
    count = page.locator("#label-kinds a", has_text="Write").locator(".number")
    expect(count).to_have_text("3")
    answer(page, "Answer 0.")
    expect(count).to_have_text("2")


def test_nothing_covers_the_border_of_the_chosen_kind(day: Project, ann: User, open_page: Any) -> None:
    day.guidelines.all().delete()  # so that no notice stands between the kinds and the prompt
    page = open_page("/label/?kind=rank", ann, viewport={"width": 1280, "height": 800})
    kind = page.locator("#label-kinds [aria-current]")
    page.mouse.move(640, 700)
    shown = kind.screenshot()
    page.locator(".label-prompt").evaluate("prompt => { prompt.style.boxShadow = 'none'; }")
    assert kind.screenshot() == shown


def test_a_chosen_rank_is_seen_in_forced_colors(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=rank", ann, forced_colors="active")
    page.keyboard.press("1")
    first = page.locator(".reply").first.locator(".ranks span")
    color = "element => getComputedStyle(element).backgroundColor"
    assert first.nth(0).evaluate(color) != first.nth(1).evaluate(color)


def test_keys_do_nothing_while_an_answer_is_on_its_way(day: Project, ann: User, open_page: Any) -> None:
    page = open_page("/label/?kind=write", ann)
    page.route("**/submit/", lambda route: route.abort())
    answer(page, "Because the wind lifts it.")
    expect(page.locator("#label-alert")).to_contain_text("sent again by itself")
    for key in ("s", "Enter", "u"):
        page.keyboard.press(key)
    expect(page.locator(".skip .items")).to_be_hidden()
    assert not Lease.objects.filter(outcome=Lease.Outcome.SKIPPED).exists()
