"""A live site (uvicorn in a thread, over the test database) and a Chromium that is signed in as whom a test names."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.conf import settings as django_settings
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests import factories
from tests.browser.scripted import Script, scripted_server
from webapp.accounts.models import Project, User
from webapp.chat import generation

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}
expect.set_options(timeout=15_000)  # a machine that does several things at once is slow, not wrong

os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright's loop runs in the thread where tests use the ORM


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if not CHROMIUM:
                item.add_marker(pytest.mark.skip(reason="there is no Chromium here; name one in CHROMIUM"))


class Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """The test run keeps its own."""


@pytest.fixture
def site(transactional_db: None, settings: Any) -> Iterator[str]:
    """The address of the site, serving the test database over ASGI as it is served for real."""
    from webapp.asgi import application

    config = uvicorn.Config(application, port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    settings.SITE_URL = f"http://{host}:{port}"
    yield settings.SITE_URL
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def violates(line: str) -> bool:
    """A line of the console that speaks of our security policy; taking screenshots breaks it by itself."""
    return "Content Security" in line and "SCREENSHOTS" not in os.environ


@pytest.fixture
def open_page(chromium: Browser, site: str) -> Iterator[Callable[..., Page]]:
    """`open_page(path, user=None, viewport=DESKTOP, **context)`: a page of the site, signed in as `user`.

    At the end of the test a script error or a violation of the content security policy on any of them fails it.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def opened(path: str = "/", user: User | None = None, **options: Any) -> Page:
        options.setdefault("viewport", DESKTOP)
        context = chromium.new_context(base_url=site, **options)
        contexts.append(context)
        if user is not None:
            client = Client()
            client.force_login(user)
            cookie = client.cookies[django_settings.SESSION_COOKIE_NAME]
            context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": site}])
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
        page.on(
            "console",
            lambda line: problems.append(f"{page.url}: {line.text}") if violates(line.text) else None,
        )
        page.goto(path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems, problems


@pytest.fixture
def model(settings: Any, transactional_db: None, project: Project) -> Iterator[Script]:
    """A deployed model that says what a test wants."""
    project.description = "Knows all about kites and the wind."
    project.save()
    factories.deployment(project)
    with scripted_server() as script:
        settings.MODEL_SERVER_URL = script.url
        yield script
        if script.pieces is not None:
            script.pieces.put("")
        for future in list(generation.under_way):
            future.result(timeout=20)


@pytest.fixture
def no_violations() -> Callable[[Page], None]:
    """Fails with axe's findings of WCAG 2.1 A and AA on the page."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page: Page) -> None:
        # Without preload: axe would copy the charts' styles into documents of its own, where our policy blocks them.
        options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "preload": False}
        results = Axe().run(page, options=options)
        assert results.violations_count == 0, results.generate_report()

    return check
