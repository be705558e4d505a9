"""Tables of things to act on: what can be done in a row is in sight on a desktop and on a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from annotations.models import Task
from tests import factories
from webapp.accounts import memberships, tokens
from webapp.accounts.models import Project, Role, User
from webapp.data.models import Import

VIEWPORTS = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
LONG = "a-name-that-is-long-enough-to-need-the-whole-width-of-a-phone"
# The names of buttons, links and fields in tables that one sees only after scrolling sideways.
HIDDEN_SIDEWAYS = """() => [...document.querySelectorAll(
  "main table :is(a, button, input:not([type=hidden]), select)"
)].filter((element) => {
  const [own, frame] = [element, element.closest(".table-scroll")].map((e) => e.getBoundingClientRect());
  return own.left < Math.max(0, frame.left) || own.right > Math.min(innerWidth, frame.right);
}).map((element) => element.textContent || element.name)"""


@pytest.fixture
def full_tables(transactional_db: None, root: User, project: Project, ada: User, mo: User, ann: User) -> Project:
    """A row or two in each table of the project and of Ada's profile."""
    factories.member(project, factories.person("Maximilian", email=f"{LONG}@example.org"))
    memberships.invite(project=project, role=Role.ANNOTATOR, by=ada, email=f"{LONG}@example.org")
    tokens.create_api_token(user=ada, name=LONG, scopes=["read", "label"], days=90)
    prompt = factories.prompt(project, f"What does {LONG} mean?")
    factories.demonstration(project, ann, "It means that a name is long.", prompt=prompt)
    factories.ranking(project, ann, reason="It rambles.", strength=2)
    factories.judgment(project, ann, "It means nothing.", prompt=prompt)
    factories.task(project, Task.Kind.WRITE, prompt=prompt)
    factories.corpus(project, name=LONG, licence="CC0", origin=f"https://example.org/{LONG}.zip")
    Import.objects.create(project=project, by=mo, name=f"{LONG}.jsonl.gz")
    base = factories.model_version(project, name=LONG, parameters=2_400_000)
    factories.model_version(project, parent=base, parameters=2_400_000)
    factories.run(project, "sft", name=LONG, state="succeeded", output=base)
    factories.snapshot(project, name=LONG)
    factories.project(ada, LONG, slug="old", archived_at=project.created_at)
    return project


@pytest.mark.parametrize("device", VIEWPORTS)
def test_nothing_to_press_in_a_table_lies_out_of_sight(
    open_page: Callable[..., Page], full_tables: Project, root: User, ada: User, device: str
) -> None:
    pages = {user: open_page("/", user, viewport=VIEWPORTS[device]) for user in (root, ada)}
    for user, path in (
        (root, "/people/"), (ada, "/profile/"), (ada, "/projects/"), (ada, "/projects/kite/members/"),
        (ada, "/projects/kite/models/"), (ada, "/projects/kite/runs/"), (ada, "/projects/kite/data/"),
        (ada, "/projects/kite/data/prompts/"), (ada, "/projects/kite/data/demonstrations/"),
        (ada, "/projects/kite/data/rankings/"), (ada, "/projects/kite/data/judgments/"),
        (ada, "/projects/kite/data/tasks/"), (ada, "/projects/kite/data/snapshots/"),
    ):  # fmt: skip
        page = pages[user]
        page.goto(path)
        expect(page.locator("main table tr").first).to_be_attached()
        assert page.evaluate(HIDDEN_SIDEWAYS) == [], path
        scrolls = "boxes => boxes.some((box) => box.scrollWidth > box.clientWidth)"
        assert not page.locator(".table-scroll").evaluate_all(scrolls), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("path", "action"), [("/projects/kite/members/", "Remove Mo"), ("/profile/", "Revoke")])
def test_rows_as_blocks_are_accessible_and_their_action_is_one_tap_away(
    open_page: Callable[..., Page], full_tables: Project, ada: User, no_violations: Callable[[Page], None],
    path: str, action: str, scheme: str,
) -> None:  # fmt: skip
    page = open_page(path, ada, viewport=VIEWPORTS["phone"], color_scheme=scheme)
    no_violations(page)
    page.on("dialog", lambda dialog: dialog.accept())
    button = page.get_by_role("button", name=action)
    button.scroll_into_view_if_needed()
    expect(button).to_be_in_viewport(ratio=1)
    button.click()
    expect(button).to_be_hidden()
