"""An annotator's day, in a browser."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from annotations.models import Demonstration, Lease, Ranking, Review, Task
from annotations.services.tasks import open_review_task
from tests import factories
from tests.browser.conftest import PHONE
from webapp.accounts.models import Project, User

LONG = "A kite flies because **wind** pushes on its tilted face.\n\n- hold the line\n- run into the wind"


@pytest.fixture
def day(project: Project, ann: User, ada: User) -> Project:
    """One task to write, two to rank, one to review."""
    factories.task(project, Task.Kind.WRITE, priority=3, prompt=factories.prompt(project, "Why does a kite fly?"))
    for priority in (2, 1):
        about = factories.prompt(project, f"Name {priority} colours of kites.")
        replies = [factories.response(about, f"{LONG}\n\nReply number {n}.") for n in range(4)]
        factories.task(project, Task.Kind.RANK, priority=priority, prompt=about, responses=replies)
    about = factories.prompt(project, "What is a tail for?")
    open_review_task(demonstration=factories.demonstration(project, ada, "It keeps the kite steddy.", prompt=about))
    return project


def title(page: Page, text: str) -> None:
    expect(page.locator("#label-title")).to_have_text(text)


def test_a_day_on_the_keyboard(day: Project, ann: User, open_page):
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
    expect(page.locator("#label-prompt, .label-prompt")).to_contain_text("Name 1 colours")
    ranking = Ranking.objects.get()
    a, b, c, d = ranking.order_shown
    assert ranking.groups == [[b], [a], [c, d]]

    page.keyboard.press("u")
    expect(page.locator(".label-prompt")).to_contain_text("Name 2 colours")
    expect(page.locator(f"input[name=rank_{b}][value='1']")).to_be_checked()
    page.locator(f".reply[data-reply='{a}']").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator(".label-prompt")).to_contain_text("Name 1 colours")
    assert Ranking.objects.get(retracted_at=None).groups == [[a, b], [c, d]]

    page.keyboard.press("s")
    page.keyboard.press("Enter")
    title(page, "Review a reply")
    assert Lease.objects.filter(outcome=Lease.Outcome.SKIPPED, skip_reason="The prompt is unclear").exists()

    page.keyboard.press("e")
    page.locator("#id_text").fill("It keeps the kite steady.")
    page.keyboard.press("Control+Enter")
    title(page, "Nothing left to do here")
    assert Review.objects.get().corrected.response.text == "It keeps the kite steady."


def test_equals_ties_with_the_reply_ranked_last(day: Project, ann: User, open_page):
    page = open_page("/label/?kind=rank", ann)
    title(page, "Rank 4 replies")
    for key in ("1", "=", "=", "2"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator(".label-saved")).to_be_visible()
    a, b, c, d = Ranking.objects.get().order_shown
    assert Ranking.objects.get().groups == [[a, b, c], [d]]


def test_a_reply_without_a_rank_is_named(day: Project, ann: User, open_page):
    page = open_page("/label/?kind=rank", ann)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#label-alert")).to_contain_text("3 replies have no rank yet.")
    assert not Ranking.objects.exists()


def test_ranking_by_drag(day: Project, ann: User, open_page):
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


def test_a_draft_survives_a_reload(day: Project, ann: User, open_page):
    page = open_page("/label/", ann)
    page.keyboard.type("Because the wi")
    expect(page.locator("#draft-state")).to_have_text("Draft saved")
    page.evaluate("localStorage.clear()")  # the server's copy alone
    page.reload()
    expect(page.locator("#id_text")).to_have_value("Because the wi")


def test_a_draft_survives_a_server_that_is_away(day: Project, ann: User, open_page):
    page = open_page("/label/", ann)
    page.route("**/draft/", lambda route: route.abort())
    page.keyboard.type("Because the wi")
    expect(page.locator("#draft-state")).to_have_text("Draft kept in this browser")
    page.reload()
    expect(page.locator("#id_text")).to_have_value("Because the wi")


def test_flags_and_ranks_are_restored_too(day: Project, ann: User, open_page):
    page = open_page("/label/?kind=rank", ann)
    page.route("**/draft/", lambda route: route.abort())
    page.keyboard.press("3")
    page.locator(".reply").first.locator("summary").click()
    page.locator(".reply").first.get_by_label("Rude").check()
    page.reload()
    card = page.locator(".reply").first
    expect(card.locator(".ranks input:checked")).to_have_value("3")
    expect(card.locator(".flags input:checked")).to_have_value("rude")


def test_a_submission_that_fails_is_sent_again_and_counts_once(day: Project, ann: User, open_page):
    page = open_page("/label/", ann)
    sent = []

    def reaches_the_server_but_the_answer_is_lost(route):
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


def test_a_submission_that_was_never_confirmed_is_sent_when_the_page_opens_again(day: Project, ann: User, open_page):
    page = open_page("/label/", ann)
    page.route("**/submit/", lambda route: route.abort())
    page.keyboard.type("Because the wind lifts it.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#label-alert")).to_be_visible()
    page.unroute("**/submit/")
    page.goto(page.url)
    title(page, "Rank 4 replies")
    assert Demonstration.objects.get(author=ann).response.text == "Because the wind lifts it."


def test_a_session_that_ends_mid_work_loses_nothing(day: Project, ann: User, open_page):
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


def test_a_lapsed_hold_is_shown_and_the_late_answer_is_kept(day: Project, ann: User, ben: User, open_page):
    page = open_page("/label/", ann)
    page.keyboard.type("Because the wind lifts it.")
    held = Lease.objects.get(person=ann)
    Lease.objects.filter(pk=held.pk).update(outcome=Lease.Outcome.LAPSED, seat=None)
    Lease.objects.create(task=held.task, person=ben, until=timezone.now() + timedelta(hours=1), seat=1)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#label-alert")).to_contain_text("someone else took it")
    page.keyboard.press("Control+Enter")
    title(page, "Rank 4 replies")
    assert Demonstration.objects.get(author=ann).lease.seat is None


def test_help_and_guidelines_are_one_key_away(day: Project, ann: User, open_page):
    page = open_page("/label/?kind=rank", ann)
    page.keyboard.press("?")
    expect(page.locator("#label-help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    expect(page.locator("#label-guidelines")).to_contain_text("Be correct, be kind, be brief.")
    page.keyboard.press("Escape")
    expect(page.locator("#label-guidelines")).to_be_hidden()


def test_the_preview_shows_what_will_be_seen(day: Project, ann: User, open_page):
    page = open_page("/label/", ann)
    page.keyboard.type("It **flies**.")
    page.keyboard.press("Alt+p")
    expect(page.locator(".preview strong")).to_have_text("flies")


def test_ranking_with_a_thumb(day: Project, ann: User, open_page):
    page = open_page("/label/?kind=rank", ann, viewport=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for number, card in enumerate(page.locator(".reply").all()):
        card.locator(".ranks label").nth(number).tap()
    page.get_by_role("button", name="Submit").tap()
    expect(page.locator(".label-saved")).to_be_visible()
    assert [len(group) for group in Ranking.objects.get().groups] == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["write", "rank", "review"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(day: Project, ann: User, open_page, no_violations, kind: str, scheme: str):
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


def test_history_and_the_empty_page_are_accessible(day: Project, ann: User, open_page, no_violations):
    page = open_page("/label/?kind=write", ann)
    page.keyboard.type("Because the wind lifts it.")
    page.keyboard.press("Control+Enter")
    title(page, "Nothing left to do here")
    no_violations(page)
    page.goto("/label/history/")
    no_violations(page)
    page.get_by_role("button", name="Take back and change").click()
    expect(page.locator("#id_text")).to_have_value("Because the wind lifts it.")


def test_it_works_without_scripts(day: Project, ann: User, open_page):
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
