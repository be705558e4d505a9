"""A manager brings a model as a file: it is sent in pieces, with progress, and goes on after a lost connection."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import DESKTOP, PHONE
from webapp.accounts.models import Project, User
from webapp.runs import uploads
from webapp.runs.models import ModelUpload, Run

SHOTS = os.environ.get("SCREENSHOTS")
FORM = "/projects/kite/runs/launch/add/"
Open = Callable[..., Page]
Check = Callable[[Page], None]


@pytest.fixture(autouse=True)
def places(data_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PIECE_BYTES", 1000)
    monkeypatch.setattr("webapp.api.serializers.PIECE_BYTES", 1000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-chat.zip"
    path.write_bytes(os.urandom(4500))
    return path


def shot(page: Page, name: str) -> None:
    for width, height in ((1280, 800), (390, 844)) if SHOTS else ():
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(200)
            page.screenshot(path=Path(str(SHOTS)) / f"{name}-{width}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_file_is_sent_over_a_bad_connection_and_added(
    open_page: Open, no_violations: Check, project: Project, mo: User, file: Path, viewport: dict[str, int]
) -> None:
    page = open_page(FORM, user=mo, viewport=viewport)
    page.get_by_label("Or send a file").set_input_files(file)
    no_violations(page)
    shot(page, "add-model")
    lost: list[str] = []

    def lose_one(route: Route) -> None:
        if "offset=2000" in route.request.url and not lost:
            lost.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/model-uploads/**", lose_one)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("is in the queue")).to_be_visible()
    assert lost, "a piece was lost on its way"
    run = Run.objects.get()
    assert (run.name, run.source_name) == ("tiny-chat", "tiny-chat.zip")
    assert run.upload is not None
    assert uploads.file_of(run.upload).read_bytes() == file.read_bytes()


def test_another_kind_of_file_is_refused_at_once(
    open_page: Open, no_violations: Check, project: Project, mo: User, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    page = open_page(FORM, user=mo)
    page.get_by_label("Or send a file").set_input_files(tmp_path / "model.bin")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="Choose one file that ends in .zip")).to_be_visible()
    no_violations(page)
    shot(page, "add-model-refused")
    assert not ModelUpload.objects.exists()


def test_what_was_stopped_goes_on_where_it_was(open_page: Open, project: Project, mo: User, file: Path) -> None:
    page = open_page(FORM, user=mo)
    held: list[Any] = []

    def hold(route: Route) -> None:
        if "offset=2000" in route.request.url and not held:
            held.append(route)
        else:
            route.continue_()

    page.route("**/model-uploads/**", hold)
    page.get_by_label("Or send a file").set_input_files(file)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("1 MB of 1 MB")).to_be_visible()
    shot(page, "add-model-sending")
    page.get_by_role("button", name="Stop sending").click()
    held[0].continue_()
    expect(page.get_by_text("Stopped. Press the button again")).to_be_visible()
    assert ModelUpload.objects.get().received == 3000
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("is in the queue")).to_be_visible()
    assert ModelUpload.objects.get().complete
