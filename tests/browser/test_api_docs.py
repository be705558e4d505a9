"""The API reference in a browser."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE
from webapp.accounts.models import Project, User


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_operation_is_listed_and_can_be_opened(open_page: Callable[..., Page], scheme: str) -> None:
    page = open_page("/api/docs/", color_scheme=scheme)
    next_task = page.locator(".opblock").filter(has_text="/api/v1/projects/{slug}/tasks/next/")
    expect(next_task).to_be_visible()
    assert page.locator(".opblock").count() > 30
    next_task.locator("button.opblock-summary-control").click()
    expect(next_task.get_by_text("Scope of the token: label")).to_be_visible()
    shoot(page, f"api-{scheme}")


def test_a_request_can_be_tried_with_the_session(open_page: Callable[..., Page], ann: User, project: Project) -> None:
    page = open_page("/api/docs/", ann, viewport=PHONE)
    projects = page.locator("#operations-api-projects_list")
    if projects.count() == 0:
        projects = page.locator(".opblock-get").filter(has_text="/api/v1/projects/").first
    projects.locator("button.opblock-summary-control").click()
    projects.get_by_role("button", name="Try it out").click()
    projects.get_by_role("button", name="Execute").click()
    expect(projects.locator(".live-responses-table")).to_contain_text('"slug": "kite"')
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    shoot(page, "api-phone")
