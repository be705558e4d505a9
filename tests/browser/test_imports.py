"""A manager brings a file in and takes rows out, on a desktop, on a phone, and without scripts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from annotations.models import Prompt
from tests import factories
from tests.browser.conftest import DESKTOP, PHONE
from webapp.accounts.models import Project, User
from webapp.data import reading, tasks
from webapp.data.models import Import

SHOTS = os.environ.get("SCREENSHOTS")
Open = Callable[..., Page]
Check = Callable[[Page], None]
ROWS = [
    {"prompt": "Why is the sky blue?", "completion": "Because air scatters blue light the most.", "page": 7},
    {"messages": [{"role": "user", "content": "Name a color."}]},
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: Go away."},
    {"text": ""},
]


@pytest.fixture(autouse=True)
def uploads(settings: Any, tmp_path: Path) -> None:
    storage = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": tmp_path / "uploads"},
    }
    settings.STORAGES = settings.STORAGES | {"default": storage}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def shot(page: Page, name: str) -> None:
    """In the sizes and colors in which people see it."""
    for width, height in ((1280, 800), (390, 844)) if SHOTS else ():
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(200)
            page.screenshot(path=Path(str(SHOTS)) / f"{name}-{width}-{scheme}.png", full_page=True)


def work() -> Import:
    """As a worker does once it is told."""
    record = Import.objects.latest("pk")
    tasks.read_import(record.pk)
    return record


def check_file(page: Page, path: Path) -> None:
    """Choose the file and have it checked."""
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_role("button", name="Check the file").click()
    expect(page.get_by_text("Being checked")).to_be_visible()
    work()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_file_is_looked_at_before_it_comes_in(
    open_page: Open, no_violations: Check, project: Project, mo: User, file: Path, viewport: dict[str, int]
) -> None:
    page = open_page("/projects/kite/data/import/", user=mo, viewport=viewport)
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_label("Ask annotators to reply to the prompts").check()
    no_violations(page)
    page.get_by_role("button", name="Check the file").click()
    expect(page.get_by_text("Being checked")).to_be_visible()
    no_violations(page)
    work()
    expect(page.get_by_role("heading", name="What will be imported")).to_be_visible()
    expect(page.get_by_role("status").get_by_text("Ready to import")).to_be_attached()
    expect(page.get_by_text("Because air scatters blue light the most.")).to_be_visible()
    no_violations(page)
    shot(page, "import-ready")
    assert not Prompt.objects.exists()
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("Being imported")).to_be_visible()
    reading.say_progress(Import.objects.get().pk, {"bytes": file.stat().st_size // 2, "rows": 2})
    expect(page.get_by_text("2 rows")).to_be_visible()
    no_violations(page)
    shot(page, "import-progress")
    work()
    expect(page.get_by_role("heading", name="What was imported")).to_be_visible()
    no_violations(page)
    shot(page, "import-done")
    page.get_by_role("link", name="See the demonstrations").click()
    expect(page.get_by_text("Rows that came from rows.jsonl")).to_be_visible()
    expect(page.get_by_text("Why is the sky blue?")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_was_typed_and_chosen_survives_an_error(
    open_page: Open, no_violations: Check, project: Project, mo: User, tmp_path: Path
) -> None:
    wrong = tmp_path / "rows.docx"
    wrong.write_text("x")
    page = open_page("/projects/kite/data/import/", user=mo)
    page.get_by_label("Corpus").fill("Novels")
    page.get_by_label("File", exact=True).set_input_files(wrong)
    page.get_by_role("button", name="Check the file").click()
    expect(page.get_by_text("cannot tell what this file holds")).to_be_visible()
    expect(page.get_by_label("Corpus")).to_have_value("Novels")
    assert page.get_by_label("File", exact=True).evaluate("input => input.files[0].name") == "rows.docx"
    assert page.evaluate("document.activeElement.id") == "id_file"
    no_violations(page)
    shot(page, "import-wrong")


def test_rows_that_cannot_be_read_are_named_and_can_be_left_out(
    open_page: Open, no_violations: Check, project: Project, mo: User, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Sing"}\n{"color": "red"}\n')
    page = open_page("/projects/kite/data/import/", user=mo)
    check_file(page, path)
    expect(page.get_by_role("alert").get_by_text("rows.jsonl:2")).to_be_visible()
    expect(page.get_by_label("Skip bad rows")).to_be_checked()
    no_violations(page)
    shot(page, "import-blocked")
    page.get_by_role("button", name="Import without the bad rows").click()
    expect(page.get_by_text("Being imported")).to_be_visible()
    work()
    expect(page.get_by_role("heading", name="What was imported")).to_be_visible()
    assert Prompt.objects.get().text == "Sing"


def test_a_bad_file_says_what_would_do_and_can_be_read_again(
    open_page: Open, no_violations: Check, project: Project, mo: User, tmp_path: Path
) -> None:
    table = tmp_path / "sheet.csv"
    table.write_text("Frage,Thema\nWarum?,Himmel\n")
    page = open_page("/projects/kite/data/import/", user=mo)
    check_file(page, table)
    expect(page.get_by_role("alert").get_by_text("found: Frage, Thema")).to_be_visible()
    expect(page.get_by_text("a prompt; instruction and question also work")).to_be_visible()
    no_violations(page)
    shot(page, "import-bad")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Nothing was imported, and the file is deleted.").first).to_be_visible()
    no_violations(page)


def test_it_works_without_scripts(open_page: Open, project: Project, mo: User, file: Path) -> None:
    page = open_page("/projects/kite/data/import/", user=mo, java_script_enabled=False)
    check_file(page, file)
    expect(page.get_by_role("button", name="Import", exact=True)).to_be_visible()  # the page loads itself again
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("Being imported")).to_be_visible()
    work()
    expect(page.get_by_role("heading", name="What was imported")).to_be_visible()


def test_rows_are_taken_out_in_the_format_that_is_chosen(
    open_page: Open, no_violations: Check, project: Project, mo: User, ann: User
) -> None:
    factories.ranking(project, ann, reason="It rambles.")
    page = open_page("/projects/kite/data/", user=mo)
    page.get_by_role("link", name="Export").first.click()
    no_violations(page)
    shot(page, "export")
    card = page.get_by_role("region", name="Rankings")
    card.get_by_label("Format").select_option(label="DPOTrainer, RewardTrainer: pairs")
    with page.expect_download() as waited:
        card.get_by_role("button", name="Download rankings").click()
    assert waited.value.suggested_filename == "kite-rankings-preference.jsonl"
    rows = [json.loads(line) for line in Path(waited.value.path()).read_text().splitlines()]
    assert len(rows) == 3
    assert rows[0]["chosen"][0]["role"] == "assistant"
